/** What an agent says of itself. */
import { request } from 'node:http'
import { z } from 'zod'
import { type HostPort, formatHostPort } from '../../lib/address.ts'
import { systemClock } from '../../lib/clock.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { parseCheckedJson } from '../checked-json.ts'
import { agentPath, protocolName } from './protocol.ts'

const answerBytesMax = 4096
const answerTimeoutMs = 5_000
const askAgainMs = 250

const agentSchema = z.object({
  protocol: z.literal(protocolName, { error: `is not ${protocolName}: both ends must be of one version` }),
  version: z.string(),
  cpuSeconds: z.number().min(0),
})

export type AgentFacts = z.infer<typeof agentSchema>

/** Rejects when there is no agent, or when it takes longer than a few seconds. */
export async function readAgent(address: HostPort, signal: AbortSignal): Promise<AgentFacts> {
  const text = await get(address, AbortSignal.any([signal, AbortSignal.timeout(answerTimeoutMs)]))
  return parseCheckedJson(text, agentPath, agentSchema)
}

/** On a connection of its own: one that is kept could be closed in this very moment. */
function get({ host, port }: HostPort, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ host, port, path: agentPath, agent: false, signal }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('error', reject)
      response.on('data', (part: string) => {
        text += part
        if (text.length > answerBytesMax) asked.destroy(new Error('the answer is too long'))
      })
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text)
        else reject(new Error(`status ${response.statusCode}`))
      })
    })
    asked.on('error', reject)
    asked.end()
  })
}

/** The same, with one clear error. One that does not answer yet may take so long. */
export async function checkAgent(
  name: string,
  address: HostPort,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<AgentFacts> {
  const untilMs = systemClock.nowMs() + timeoutMs
  for (;;) {
    try {
      return await readAgent(address, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (systemClock.nowMs() < untilMs) {
        await systemClock.sleep(askAgainMs, signal)
        continue
      }
      const where = formatHostPort(address.host, address.port)
      throw new UserError(
        `path ${name}: no agent at ${where} (${errorMessage(error)}): start "spegel-ts benchmark network serve" there`,
      )
    }
  }
}
