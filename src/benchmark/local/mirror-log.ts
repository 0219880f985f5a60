/** What a mirror tells of its answers: this project's log lines. Lines of other mirrors are passed over. */
import { readFileSync } from 'node:fs'
import { z } from 'zod'

export interface MirrorAnswer {
  key: string
  firstByteSincePhaseMs: number
}

const line = z.object({
  key: z.string(),
  method: z.literal('GET'),
  time: z.iso.datetime(),
  ms: z.number(),
  firstByteMs: z.number(),
})

/** Answers with bytes that were logged since a moment, the first of each key first. */
export function mirrorAnswers(path: string, sinceWallMs: number): MirrorAnswer[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((text) => text.startsWith('{') && text.includes('"firstByteMs"'))
    .flatMap((text) => {
      const { data } = line.safeParse(parsed(text))
      if (data === undefined || Date.parse(data.time) < sinceWallMs) return []
      const firstByteWallMs = Date.parse(data.time) - data.ms + data.firstByteMs
      return [{ key: data.key, firstByteSincePhaseMs: firstByteWallMs - sinceWallMs }]
    })
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
