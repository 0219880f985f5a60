/** One HTTP request on a connection of its own, with a bounded answer: for servers that are asked seldom. */
import { type RequestOptions, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { SecureContextOptions } from 'node:tls'
import { answerBytesMax } from '../limits.ts'

export interface Answer {
  status: number
  text: string
}

/** Rejects when there is no whole answer, or one that is too large; and with the signal's reason. */
export function ask(
  url: URL,
  options: Pick<RequestOptions, 'method' | 'headers'> & Pick<SecureContextOptions, 'ca' | 'cert' | 'key'>,
  signal: AbortSignal,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = url.protocol === 'https:' ? httpsRequest : httpRequest
    const outgoing = request(url, { ...options, signal, agent: false }, (response) => {
      const parts: Buffer[] = []
      let receivedBytes = 0
      response.on('data', (part: Buffer) => {
        receivedBytes += part.length
        if (receivedBytes > answerBytesMax) {
          outgoing.destroy(new Error(`${url.href} answered more than ${answerBytesMax} bytes`))
        }
        parts.push(part)
      })
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') }),
      )
      response.on('error', reject)
    })
    outgoing.on('error', reject)
    outgoing.end()
  })
}
