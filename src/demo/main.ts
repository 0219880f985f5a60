/**
 * `npm run demo`: nodes pull an image through each other, upstream goes away, a serving peer is killed. Prints what
 * happened; the exit code says whether it was as promised. Leaves nothing behind.
 */
import { parseArgs } from 'node:util'
import { UserError, errorMessage } from '../lib/errors.ts'
import { containerdWorld } from './containerd-world.ts'
import { loopbackWorld } from './loopback-world.ts'
import { type Scene, play } from './story.ts'
import type { World } from './world.ts'

const usage = `Usage: npm run demo -- [--containerd] [--json]
  --containerd  real containerd in network namespaces (needs root; prepares what it needs below .cache/)
  --json        one JSON object on standard output
`
const columns = [7, 42, 14, 14, 10, 32]

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { containerd: { type: 'boolean' }, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  })
  if (values.help === true) {
    process.stdout.write(usage)
    return 0
  }
  const say = (line: string) => void process.stderr.write(`${line}\n`)
  const world = values.containerd === true ? await containerdWorld(say) : await loopbackWorld()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void world.close().finally(() => process.exit(1)))
  }
  try {
    return values.json === true ? await playAsJson(world) : await playAsTable(world)
  } finally {
    await world.close()
  }
}

async function playAsTable(world: World): Promise<number> {
  const write = (line: string) => process.stdout.write(`${line}\n`)
  write(`${world.description}\nimage ${world.image}, ${inMiB(world.imageBytes)}\n`)
  write(row(['pull on', 'what happens', 'from upstream', 'from peers', 'time', 'expected']))
  const scenes = await play(world, (scene) => write(sceneRow(scene)))
  const wrong = scenes.filter(({ asExpected }) => !asExpected).length
  write(wrong === 0 ? '\nAll as expected, every digest verified.' : `\n${wrong} not as expected.`)
  return wrong === 0 ? 0 : 1
}

async function playAsJson(world: World): Promise<number> {
  const scenes = await play(world, () => undefined)
  const ok = scenes.every(({ asExpected }) => asExpected)
  const { description, image, imageBytes } = world
  process.stdout.write(`${JSON.stringify({ ok, description, image, imageBytes, scenes })}\n`)
  return ok ? 0 : 1
}

function sceneRow({
  node,
  event,
  expected,
  asExpected,
  upstreamBytes,
  peerBytes,
  resumes,
  elapsedMs,
}: Scene): string {
  const resumed = resumes === 0 ? '' : ` (${resumes} resumed)`
  return row([
    `node ${node}`,
    event,
    inMiB(upstreamBytes),
    inMiB(peerBytes),
    `${(elapsedMs / 1000).toFixed(2)} s`,
    `${asExpected ? 'yes' : 'NO'}: ${expected}${resumed}`,
  ])
}

function row(cells: readonly string[]): string {
  return cells
    .map((cell, index) => cell.padEnd(columns[index] ?? 0))
    .join(' ')
    .trimEnd()
}

function inMiB(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`
}

try {
  process.exitCode = await main()
} catch (error) {
  const advice = error instanceof UserError ? '' : `\n${error instanceof Error ? (error.stack ?? '') : ''}`
  process.stderr.write(`demo: ${errorMessage(error)}${advice}\n`)
  process.exitCode = 1
}
