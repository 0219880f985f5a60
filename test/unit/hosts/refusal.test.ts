/** With real sockets on this machine. */
import { type AddressInfo, createServer } from 'node:net'
import { expect, it } from 'vitest'
import { refusesConnections } from '../../../src/hosts/refusal.ts'

it('tells an upstream that refuses connections from one that takes them, and from one that cannot be judged', async () => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  expect(await refusesConnections(`http://127.0.0.1:${port}`)).toBe(false)
  await new Promise((resolve) => server.close(resolve))
  expect(await refusesConnections(`http://127.0.0.1:${port}`)).toBe(true)
  expect(await refusesConnections(`https://[::1]:${port}`)).toBe(true)
  expect(await refusesConnections('https://nobody.invalid')).toBe(false)
})
