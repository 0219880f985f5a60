import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { awakeMs } from '../../../src/testbed/awake-clock.ts'
import { waitUntil } from '../../../src/testbed/process.ts'

const standstillMs = 2_000

/** Nothing of this process runs meanwhile, as when the machine stands still. */
function standStill(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, standstillMs)
}

it('does not count time in which nothing ran', async () => {
  const [before, beforeMs] = [awakeMs(), performance.now()]
  standStill()
  const awake = awakeMs() - before
  const lostMs = performance.now() - beforeMs - awake
  expect(lostMs).toBeGreaterThan(standstillMs * 0.9)
  await delay(300)
  expect(awakeMs() - before - awake).toBeGreaterThanOrEqual(290)
})

it('lets waits go on after a standstill', async () => {
  let probes = 0
  const fifthTime = () => {
    probes += 1
    if (probes === 1) standStill()
    return Promise.resolve(probes === 5)
  }
  await waitUntil('the fifth time', fifthTime, { timeoutMs: standstillMs / 2, pollMs: 10 })
  await expect(waitUntil('nothing', () => Promise.resolve(false), { timeoutMs: 50, pollMs: 10 })).rejects.toThrow(
    'nothing: not within 50 ms',
  )
})
