/** What an agent says of itself. */
import { request } from 'node:http'
import { z } from 'zod'
import { type HostPort, formatHostPort } from '../../lib/address.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { parseCheckedJson } from '../checked-json.ts'
import { agentPath, protocolName } from './protocol.ts'

const answerBytesMax = 4096
const answerTimeoutMs = 5_000

const agentSchema = z.object({
  protocol: z.literal(protocolName, { error: `is not ${protocolName}: both ends must be of one version` }),
  version: z.string(),
  cpuSeconds: z.number().min(0),
})

export type AgentFacts = z.infer<typeof agentSchema>

/** Rejects when there is no agent, or when it takes longer than a few seconds. */
export function readAgent({ host, port }: HostPort, signal: AbortSignal): Promise<AgentFacts> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(answerTimeoutMs)])
  return new Promise((resolve, reject) => {
    // A connection of its own: one that is kept could be closed in this very moment.
    const asked = request({ host, port, path: agentPath, agent: false, signal: limit }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('error', reject)
      response.on('data', (part: string) => {
        text += part
        if (text.length > answerBytesMax) asked.destroy(new Error('the answer is too long'))
      })
      response.on('end', () => {
        try {
          if (response.statusCode !== 200) throw new UserError(`status ${response.statusCode}`)
          resolve(parseCheckedJson(text, `http://${formatHostPort(host, port)}${agentPath}`, agentSchema))
        } catch (error) {
          reject(error)
        }
      })
    })
    asked.on('error', reject)
    asked.end()
  })
}

/** The same, with one clear error. */
export async function checkAgent(name: string, address: HostPort, signal: AbortSignal): Promise<AgentFacts> {
  try {
    return await readAgent(address, signal)
  } catch (error) {
    const where = formatHostPort(address.host, address.port)
    throw new UserError(
      `path ${name}: no agent at ${where} (${errorMessage(error)}): start "spegel-ts benchmark network serve" there`,
    )
  }
}
