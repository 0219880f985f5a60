import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { type Agent, startAgent } from '../../../../src/benchmark/network/agent.ts'
import { readAgent } from '../../../../src/benchmark/network/agents.ts'
import { echoAsker, getAsker, httpAsker, setAsker } from '../../../../src/benchmark/network/askers.ts'
import { openStream } from '../../../../src/benchmark/network/connection.ts'
import {
  answerType,
  datagramHeadBytes,
  datagramsPath,
  echoPath,
  requestType,
  sourcePath,
  tokenBytes,
  valuesPath,
} from '../../../../src/benchmark/network/protocol.ts'

const agents: Agent[] = []
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.close()
})

const signal = new AbortController().signal
async function start(host = '127.0.0.1') {
  const agent = await startAgent({ host, port: 0 }, 'test')
  agents.push(agent)
  return { agent, address: { host: host === '' ? '127.0.0.1' : host, port: agent.address.port } }
}
const answer = (asker: { ask(answered: () => void): void; lost: Promise<never> }) =>
  Promise.race([new Promise<void>((resolve) => asker.ask(resolve)), asker.lost])

describe('an agent', () => {
  it('answers over IPv4 and IPv6 on one port', async () => {
    const { address } = await start('')
    expect(await readAgent({ ...address, host: '127.0.0.1' }, signal)).toMatchObject({ version: 'test' })
    expect(await readAgent({ ...address, host: '::1' }, signal)).toMatchObject({ version: 'test' })
  })

  it('sends what was asked for, back and forth', async () => {
    const { address } = await start()
    for (const open of [
      echoAsker(1),
      echoAsker(100_000),
      setAsker(Math.random),
      getAsker(Math.random),
      httpAsker(350),
      httpAsker(3_000_000),
    ]) {
      const asker = await open(address, signal)
      for (let index = 0; index < 20; index++) await answer(asker)
      asker.close()
    }
  })

  it('keeps sending to those who take it', async () => {
    const { address } = await start()
    let received = 0
    let enough: () => void = () => undefined
    const done = new Promise<void>((resolve) => (enough = resolve))
    const stream = await openStream(
      address,
      sourcePath,
      ({ length }) => {
        received += length
        if (received > 20 * 1024 ** 2) enough()
      },
      signal,
    )
    await Promise.race([done, stream.lost])
    stream.close()
  })

  it.each([
    ['POST /bytes/1 HTTP/1.1', '405 Method Not Allowed'],
    ['GET /bytes/9999999999 HTTP/1.1', '400 Bad Request'],
    ['GET /bytes/-1 HTTP/1.1', '404 Not Found'],
    ['GET http://example.test/ HTTP/1.1', '404 Not Found'],
    ['CONNECT example.test:80 HTTP/1.1', ''],
    ['GET /streams/relay HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: spegel-ts-network/1', '404 Not Found'],
    [`GET ${echoPath} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket`, '404 Not Found'],
  ])('refuses %s', async (head, status) => {
    const { address } = await start()
    const socket = connect(address.port, address.host)
    socket.on('error', () => undefined)
    socket.write(`${head}\r\nHost: x\r\n\r\n`)
    socket.end()
    let text = ''
    socket.on('data', (data) => (text += data.toString()))
    await once(socket, 'close')
    expect(text.split('\r\n', 1)[0]).toBe(status === '' ? '' : `HTTP/1.1 ${status}`)
  })

  it('ends a stream of values that makes no sense', async () => {
    const { address } = await start()
    const stream = await openStream(address, valuesPath, () => undefined, signal)
    stream.write('nonsense')
    await expect(stream.lost).rejects.toThrow(/closed the connection|ECONNRESET/)
  })

  it('sends datagrams back only to those who hold a stream, and never more than it got', async () => {
    const { address } = await start()
    let token = Buffer.alloc(0)
    let complete: () => void = () => undefined
    const given = new Promise<void>((resolve) => (complete = resolve))
    const stream = await openStream(
      address,
      datagramsPath,
      (bytes) => {
        token = Buffer.concat([token, bytes])
        if (token.length === tokenBytes) complete()
      },
      signal,
    )
    await given
    const socket = createSocket('udp4')
    const answers: Buffer[] = []
    const message = (type: number, mark: number, from = token, bytes = 40) => {
      const text = Buffer.alloc(bytes)
      from.copy(text)
      text[tokenBytes] = type
      text.writeUInt32BE(mark, tokenBytes + 1)
      return text
    }
    const sendAndWait = async (...messages: Buffer[]) => {
      for (const each of messages) socket.send(each, address.port, address.host)
      const [received] = (await once(socket, 'message')) as [Buffer]
      answers.push(received)
    }
    // The agent takes them in order: an answer to the last shows that the ones before got none.
    await sendAndWait(
      message(requestType, 1, Buffer.alloc(tokenBytes)),
      message(answerType, 2),
      message(requestType, 3, token, 1_400),
      token.subarray(0, datagramHeadBytes - 1),
      message(requestType, 4),
    )
    expect(answers.map((each) => each.readUInt32BE(tokenBytes + 1))).toEqual([4])
    expect(answers[0]).toEqual(message(answerType, 4))

    // With another stream's token as a witness: that of a stream that has ended is worth nothing.
    let other = Buffer.alloc(0)
    const witness = await openStream(
      address,
      datagramsPath,
      (bytes) => (other = Buffer.concat([other, bytes])),
      signal,
    )
    stream.close()
    while ((await readAgent(address, signal)) && other.length < tokenBytes);
    await sendAndWait(message(requestType, 5), message(requestType, 6, other))
    expect(answers.at(-1)?.readUInt32BE(tokenBytes + 1)).toBe(6)
    witness.close()
    socket.close()
  })

  it('ends with all its connections', async () => {
    const { agent, address } = await start()
    const streams = await Promise.all(
      [echoPath, sourcePath, valuesPath, datagramsPath].map((path) =>
        openStream(address, path, () => undefined, signal),
      ),
    )
    await agent.close()
    agents.splice(0)
    for (const stream of streams) await expect(stream.lost).rejects.toThrow()
    await expect(readAgent(address, signal)).rejects.toThrow(/ECONNREFUSED/)
  })

  it('says when its port is taken', async () => {
    const { address } = await start()
    await expect(startAgent(address, 'test')).rejects.toThrow(`cannot listen on 127.0.0.1:${address.port}`)
  })
})
