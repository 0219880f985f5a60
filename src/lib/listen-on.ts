/** Listening with a server of Node where an option says, and the error that an operator can act on. */
import { once } from 'node:events'
import type { Server } from 'node:net'
import { type HostPort, formatHostPort } from './address.ts'
import { UserError, errorMessage } from './errors.ts'
import { remedyFor } from './system-error.ts'

/** An empty host means all addresses. Throws a UserError that names the option. */
export async function listenOn(server: Server, { host, port }: HostPort, option: string): Promise<void> {
  server.listen({ port, ...(host === '' ? {} : { host }) })
  try {
    await once(server, 'listening')
  } catch (error) {
    throw cannotListen({ host, port }, option, error)
  }
}

export function cannotListen({ host, port }: HostPort, option: string, error: unknown): UserError {
  const remedy = remedyFor(error) ?? 'choose another address'
  return new UserError(`${option}: cannot listen on ${formatHostPort(host, port)}: ${errorMessage(error)}: ${remedy}`)
}
