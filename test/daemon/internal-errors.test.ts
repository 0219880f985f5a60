import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { reportInternalError } from '../../src/lib/background.ts'
import { UserError } from '../../src/lib/errors.ts'
import { DaemonGroup, eventually } from '../support/daemons.ts'
import { parseScrape } from '../support/promql.ts'

describe('a daemon', () => {
  let group: DaemonGroup
  beforeEach(() => {
    group = new DaemonGroup()
  })
  afterEach(() => group.close())

  it('logs an internal error with its stack and counts it, until it is closed', async () => {
    const daemon = await group.start()
    const error = new TypeError('x is not a function')
    expect(reportInternalError('lookup', error, { key: 'k' })).toBe(true)
    const line = daemon.lines.find(({ msg }) => msg === 'internal error')
    expect(line).toMatchObject({ level: 'ERROR', task: 'lookup', key: 'k', error: 'x is not a function' })
    expect(line?.['stack']).toContain('internal-errors.test.ts')
    const series = parseScrape(await (await fetch(`${daemon.metricsUrl}/metrics`)).text())
    const counted = series.filter(({ name, value }) => name === 'spegel_ts_internal_errors_total' && value > 0)
    expect(counted).toEqual([{ name: 'spegel_ts_internal_errors_total', labels: { task: 'lookup' }, value: 1 }])
    await daemon.daemon.close(0)
    expect(reportInternalError('lookup', error)).toBe(false)
  })

  it('that cannot start reports why, and leaves nothing behind', async () => {
    const taken = createServer().listen(9090, group.address(1))
    await once(taken, 'listening')
    try {
      const error = await group.start().catch((reason: unknown) => reason)
      expect(error).toBeInstanceOf(UserError)
      expect((error as Error).message).toMatch(/^--metrics-addr: cannot listen/)
      expect(reportInternalError('lookup', new Error('unheard'))).toBe(false)
    } finally {
      taken.close()
    }
    await once(taken, 'close')
    // Its ports are free again.
    await group.start()
  })
})

describe('an error that nothing caught', () => {
  const spegel = join(import.meta.dirname, '../../bin/spegel-ts')
  const breaker = join(import.meta.dirname, '../support/break-on-signal-process.ts')
  let layout: string
  beforeEach(async () => {
    layout = await mkdtemp(join(tmpdir(), 'internal-errors-'))
  })
  afterEach(() => rm(layout, { recursive: true, force: true }))

  it('is logged and counted: after a rejection the daemon lives on, after an exception it stops and exits with 1', async () => {
    const ip = new DaemonGroup().address(1)
    const args = ['registry', `--oci-layout=${layout}`, '--bootstrap-kind=static', `--registry-addr=${ip}:5000`]
    const addresses = [`--router-addr=${ip}:5001`, `--metrics-addr=${ip}:9090`]
    const env = { ...process.env, NODE_OPTIONS: `--import=${breaker}` }
    const child = spawn(spegel, [...args, ...addresses], { env, stdio: ['ignore', 'ignore', 'pipe'] })
    const ended = once(child, 'close')
    let output = ''
    child.stderr.on('data', (data: Buffer) => (output += data.toString()))
    const logged = (task: string) =>
      output
        .split('\n')
        .filter((line) => line.includes('"internal error"') && line.includes(task))
        .map((line) => JSON.parse(line) as { error: string; stack: string })
    const counted = async (task: string) => {
      const series = parseScrape(await (await fetch(`http://${ip}:9090/metrics`)).text())
      return series.find(({ name, labels }) => name === 'spegel_ts_internal_errors_total' && labels['task'] === task)
        ?.value
    }
    try {
      await eventually(() => expect(output).toContain('"started"'), 30_000)
      child.kill('SIGUSR2')
      await eventually(() => expect(logged('unhandled_rejection')).toHaveLength(1))
      expect(logged('unhandled_rejection')[0]).toMatchObject({
        error: 'rejected by the test',
        stack: expect.stringContaining('break-on-signal-process.ts'),
      })
      expect(await counted('unhandled_rejection')).toBe(1)
      expect((await fetch(`http://${ip}:5000/livez`)).status).toBe(200)

      child.kill('SIGHUP')
      expect((await ended)[0]).toBe(1)
      expect(logged('uncaught_exception')).toMatchObject([
        { error: 'thrown by the test', stack: expect.stringContaining('break-on-signal-process.ts') },
      ])
      // In order: its transfers may end, its parts are closed.
      expect(output).toContain('"stopped"')
    } finally {
      child.kill('SIGKILL')
    }
  })
})
