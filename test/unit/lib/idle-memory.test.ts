import { beforeEach, describe, expect, it } from 'vitest'
import { IdleMemory } from '../../../src/lib/idle-memory.ts'
import { idleBeforeCollectionMs, idleGrowthBytes } from '../../../src/limits.ts'
import { ManualClock } from '../../support/manual-clock.ts'

describe('memory of a daemon at rest', () => {
  let clock: ManualClock
  let busy: boolean
  let residentBytes: number
  let given: number
  let idle: IdleMemory

  beforeEach(() => {
    clock = new ManualClock()
    busy = false
    residentBytes = 4 * idleGrowthBytes
    given = 0
    const giveBack = () => {
      given += 1
      residentBytes = 2 * idleGrowthBytes
    }
    idle = new IdleMemory(clock, () => busy, { residentBytes: () => residentBytes, giveBack })
  })

  it('is given back once, a while after the last work', () => {
    for (let requests = 0; requests < 10; requests++) {
      idle.noteWork()
      clock.advance(idleBeforeCollectionMs - 1)
    }
    expect(given).toBe(0)
    clock.advance(1)
    expect(given).toBe(1)
    clock.advance(100 * idleBeforeCollectionMs)
    expect(given).toBe(1)
  })

  it('is kept while a long body is sent', () => {
    idle.noteWork()
    busy = true
    clock.advance(10 * idleBeforeCollectionMs)
    expect(given).toBe(0)
    busy = false
    clock.advance(idleBeforeCollectionMs)
    expect(given).toBe(1)
  })

  it('is given back again only when it has grown', () => {
    const workAndRest = () => {
      idle.noteWork()
      clock.advance(idleBeforeCollectionMs)
    }
    workAndRest()
    residentBytes += idleGrowthBytes - 1
    workAndRest()
    expect(given).toBe(1)
    residentBytes += 1
    workAndRest()
    expect(given).toBe(2)
  })

  it('is left alone when the daemon has stopped', () => {
    idle.noteWork()
    idle.close()
    clock.advance(10 * idleBeforeCollectionMs)
    expect(given).toBe(0)
  })
})
