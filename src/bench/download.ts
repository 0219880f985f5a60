/** Downloads with curl, which throws the bytes away; and once with a check of what they are. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { output } from '../testbed/process.ts'

/** Nothing here takes longer on a machine that can be measured on. */
const downloadSecondsMax = 120

/** From the first start to the last end, the start of the processes included. Rejects unless every byte comes. */
export async function download(urls: readonly string[], bytesEach: number): Promise<{ seconds: number }> {
  const startedMs = performance.now()
  const printed = await Promise.all(urls.map((url) => output(spawnCurl([url]))))
  const seconds = (performance.now() - startedMs) / 1000
  for (const [index, line] of printed.entries()) {
    if (line.trim() !== `200 ${bytesEach}`)
      throw new Error(`${urls[index]}: ${line.trim()} instead of 200 ${bytesEach}`)
  }
  return { seconds }
}

/** One curl that gets the URLs one after the other; end it when it is no longer needed. */
export function spawnCurl(urls: readonly string[]): ChildProcess {
  const perUrl = urls.flatMap((url) => ['-o', '/dev/null', url])
  const format = String.raw`%{http_code} %{size_download}\n`
  const args = ['-q', '-s', '-S', '--noproxy', '*', '--max-time', String(downloadSecondsMax), '-w', format, ...perUrl]
  return spawn('curl', args, { stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Rejects unless the body is what the digest says. */
export async function verify(url: string, digest: string): Promise<void> {
  const response = await fetch(url)
  const hash = createHash('sha256')
  for await (const chunk of response.body ?? []) hash.update(chunk as Uint8Array)
  const actual = `sha256:${hash.digest('hex')}`
  if (actual !== digest) throw new Error(`${url}: ${response.status}, and the body is ${actual}`)
}
