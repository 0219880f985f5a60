/** What the links really carry: payload over TCP, measured from one host's namespace to another's. */
import { fileURLToPath } from 'node:url'
import type { Host } from './network.ts'
import { end, output, waitUntil } from './process.ts'

const script = fileURLToPath(new URL('link-probe.ts', import.meta.url))
const port = 4999

/** Bytes of payload per second. */
export interface LinkRates {
  /** To all nodes together. */
  upstream: number
  /** One connection. */
  upstreamSingle: number
  nodeOut: number
  nodeIn: number
}

export async function measureLinks(upstream: Host, nodes: readonly Host[]): Promise<LinkRates> {
  const all = await Promise.all([upstream, ...nodes].map(startServer))
  try {
    const [first, ...others] = nodes
    if (first === undefined) throw new Error('there is no node')
    const upstreamSingle = await rateFrom(upstream, first)
    const shared = await Promise.all(nodes.map((node) => rateFrom(upstream, node)))
    // A single node has nobody to talk to: the floor then depends on upstream alone.
    const two = others.slice(0, 2)
    const nodeOut =
      two.length === 0 ? upstreamSingle : sum(await Promise.all(two.map((node) => rateFrom(first, node))))
    const nodeIn =
      two.length === 0 ? upstreamSingle : sum(await Promise.all(two.map((node) => rateFrom(node, first))))
    // The nodes' clocks do not start in the same moment: together they never get less than one alone.
    return { upstream: Math.max(sum(shared), upstreamSingle), upstreamSingle, nodeOut, nodeIn }
  } finally {
    await Promise.all(all.map((child) => end(child)))
  }
}

async function startServer(host: Host) {
  const child = host.spawn(process.execPath, [script, 'serve', String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let isListening = false
  child.stdout?.once('data', () => (isListening = true))
  await waitUntil('the link probe', () => Promise.resolve(isListening), { timeoutMs: 10_000, child })
  return child
}

async function rateFrom(source: Host, sink: Host): Promise<number> {
  return Number(await output(sink.spawn(process.execPath, [script, 'fetch', source.ip, String(port)])))
}

function sum(rates: readonly number[]): number {
  return rates.reduce((total, rate) => total + rate, 0)
}
