/** Runs as a child process in a host's network: asks over HTTP what it is told over IPC. */
import { request } from 'node:http'
import type { Answer, Question } from './namespace-client.ts'

process.on('message', ({ id, url, method, headers }: Question) => {
  // No connection is kept: servers are restarted between questions.
  const outgoing = request(url, { method, headers, agent: false }, (response) => {
    const parts: Buffer[] = []
    response.on('data', (part: Buffer) => parts.push(part))
    response.on('error', fail)
    response.on('end', () => {
      const { statusCode: status = 0, headers: answered } = response
      send({ id, answer: { status, headers: answered as Record<string, string>, body: Buffer.concat(parts) } })
    })
  })
  function fail(error: Error): void {
    send({ id, error: `${method} ${url}: ${error.message}` })
  }
  outgoing.on('error', fail)
  outgoing.end()
})
process.on('disconnect', () => process.exit())

function send(answer: Answer): void {
  process.send?.(answer)
}
