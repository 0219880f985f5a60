/** Listening where an option says, and the error that an operator can act on. */
import type { FastifyInstance } from 'fastify'
import type { HostPort } from '../lib/address.ts'
import { errorCode } from '../lib/errors.ts'
import { cannotListen } from '../lib/listen-on.ts'

/** An empty host means all addresses: of both families, or of IPv4 where the system has no IPv6. */
export async function listen(app: FastifyInstance, { host, port }: HostPort, option: string): Promise<void> {
  try {
    await app.listen({ port, host: host === '' ? '::' : host })
  } catch (error) {
    if (host === '' && errorCode(error) === 'EAFNOSUPPORT') {
      await listen(app, { host: '0.0.0.0', port }, option)
      return
    }
    throw cannotListen({ host, port }, option, error)
  }
}
