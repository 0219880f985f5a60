/**
 * Whatever is in certs.d, containerd is never worse off with our configuration, and gets everything back. See
 * `test/support/hosts-scenario.ts` for what is checked. HOSTS_TREES: number of trees (default: 500, or as many
 * as 60 s allow), HOSTS_SEED repeats a run, HOSTS_SCENARIO plays one scenario: the JSON that a failure prints.
 */
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, it, vi } from 'vitest'
import { errorMessage } from '../../src/lib/errors.ts'
import { Authority } from '../support/authority.ts'
import { HostsJudge } from '../support/hosts-judge.ts'
import { type Scenario, type World, createWorld, play, scenarios } from '../support/hosts-scenario.ts'

vi.mock('node:fs/promises', async (original) => {
  const { interruptible } = await import('../support/interrupted-files.ts')
  return interruptible(await original())
})

/** Scenarios that failed once: played first in every run. */
const regressions = readFileSync(new URL('./hosts-regressions.json', import.meta.url), 'utf8')
const examples = (JSON.parse(regressions) as Scenario[]).map((scenario): [Scenario] => [scenario])
const trees = Number(process.env['HOSTS_TREES'] ?? 500)
/** In CI; a run for figures takes as long as it takes. */
const timeLimitMs = process.env['HOSTS_TREES'] === undefined ? 60_000 : 7_200_000

describe('certs.d with the mirror', () => {
  let judges: HostsJudge[] = []
  let work = ''
  let world: World

  beforeAll(async () => {
    judges = await HostsJudge.startAll()
    work = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'hosts-toml-'))
    const [one, other] = [await Authority.create(join(work, 'one')), await Authority.create(join(work, 'other'))]
    const client = await one.issue('client', '/CN=client')
    const read = (path: string) => readFile(path, 'utf8')
    world = await createWorld(judges, work, {
      ca: await read(one.certificate),
      otherCa: await read(other.certificate),
      client: await read(client.certificate),
      clientKey: await read(client.key),
    })
  }, 600_000)
  afterAll(async () => {
    await Promise.all(judges.map((judge) => judge.close()))
    await rm(work, { recursive: true, force: true })
  })

  it(
    'is read by every containerd as the mirror and then as before, and is restored exactly',
    async () => {
      const seed = Number(process.env['HOSTS_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
      process.stderr.write(`hosts.toml: HOSTS_SEED=${seed}\n`)
      const single = process.env['HOSTS_SCENARIO']
      if (single !== undefined) return play(JSON.parse(single) as Scenario, world)
      const endMs = performance.now() + timeLimitMs
      let played = 0
      // fast-check's own limit would leave the last scenario running: its faults would reach what comes next.
      const property = fc.asyncProperty(scenarios, async (scenario) => {
        if (performance.now() > endMs) return
        await play(scenario, world)
        played += 1
      })
      const result = await fc.check(property, { seed, numRuns: trees, examples })
      process.stderr.write(`hosts.toml: ${played} trees for each of ${judges.length} releases of containerd\n`)
      if (!result.failed) return
      const [shrunk] = result.counterexample ?? []
      const violation = result.errorInstance
      const message = `HOSTS_SEED=${seed}, shrunk to ${JSON.stringify(shrunk)}`
      throw new Error(`${errorMessage(violation)}\n${message}`, { cause: violation })
    },
    2 * timeLimitMs,
  )
})
