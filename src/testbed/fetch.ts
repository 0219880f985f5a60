/** HTTP requests from inside a host's network: a process of Node there, so that tests need no curl. */
import type { Host } from './network.ts'
import { output } from './process.ts'

export interface Fetched {
  status: number
  headers: Record<string, string>
  body: Buffer
}

const script = `
const [url, init] = process.argv.slice(1)
try {
  const response = await fetch(url, JSON.parse(init))
  const body = Buffer.from(await response.arrayBuffer()).toString('base64')
  console.log(JSON.stringify({ status: response.status, headers: Object.fromEntries(response.headers), body }))
} catch (error) {
  console.error(String(error.cause ?? error))
  process.exitCode = 1
}`

/** Rejects when there is no answer. Bodies are held in memory: for small ones. */
export async function fetchFrom(
  host: Host,
  url: string,
  init: { method?: string; headers?: Record<string, string> } = {},
): Promise<Fetched> {
  const args = ['--input-type=module', '-e', script, url, JSON.stringify(init)]
  const printed = await output(host.spawn(process.execPath, args))
  const { status, headers, body } = JSON.parse(printed) as Omit<Fetched, 'body'> & { body: string }
  return { status, headers, body: Buffer.from(body, 'base64') }
}
