/** A command that is done answers `/readyz` until it is stopped, so that Kubernetes counts its pod as ready. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { HostPort } from './address.ts'
import { listenOn } from './listen-on.ts'

/** Throws a UserError that names the option when the address cannot be had. */
export async function answerReady(address: HostPort, option: string, stop: AbortSignal): Promise<void> {
  const server = createServer((request, response) => {
    response.writeHead(request.url === '/readyz' ? 200 : 404, { 'content-length': 0 }).end()
  })
  await listenOn(server, address, option)
  if (!stop.aborted) await once(stop, 'abort')
  server.close()
  server.closeAllConnections()
}
