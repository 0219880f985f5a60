/**
 * Every command ends at the first SIGTERM or SIGINT within its grace time and at the second at once, whatever became of
 * its output: closed by the reader, full because nobody reads, on a full disk, or closed from the start.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { type Server, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { closeGraceMs, exitOutputMs } from '../../src/limits.ts'
import { commandLine, makeFiles } from '../support/command-lines.ts'
import { eventually } from '../support/daemons.ts'

const spegel = join(import.meta.dirname, '../../bin/spegel-ts')
/** Beside its grace time, a process needs a moment on a busy machine. */
const endMs = closeGraceMs + exitOutputMs + 6_000

describe('a process', () => {
  let directory = ''
  const children: ChildProcess[] = []
  const descriptors: number[] = []
  const servers: Server[] = []

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'ending-'))
    await makeFiles(directory)
  })
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    for (const descriptor of descriptors.splice(0)) closeSync(descriptor)
    for (const server of servers.splice(0)) server.close()
    await rm(directory, { recursive: true, force: true })
  })

  function fifo(name: string): string {
    const path = join(directory, name)
    execFileSync('mkfifo', [path])
    return path
  }

  /** A pipe that has no room left, and a reader that never reads. */
  function fullPipe(): number {
    const path = fifo(`full-${descriptors.length}`)
    descriptors.push(openSync(path, constants.O_RDWR | constants.O_NONBLOCK))
    const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
    descriptors.push(writer)
    try {
      for (;;) writeSync(writer, Buffer.alloc(4_096))
    } catch {
      // EAGAIN: it is full.
    }
    const blocking = openSync(path, constants.O_WRONLY)
    descriptors.push(blocking)
    return blocking
  }

  /** A pipe whose reader has left. */
  function brokenPipe(): number {
    const path = fifo(`broken-${descriptors.length}`)
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const writer = openSync(path, constants.O_WRONLY)
    closeSync(reader)
    descriptors.push(writer)
    return writer
  }

  function fullDisk(): number {
    const descriptor = openSync('/dev/full', constants.O_WRONLY)
    descriptors.push(descriptor)
    return descriptor
  }

  type Stream = number | 'pipe' | 'ignore'
  function start(args: readonly string[], stdout: Stream, stderr: Stream) {
    const child = spawn(spegel, args, { stdio: ['ignore', stdout, stderr] })
    children.push(child)
    return { child, exited: exitOf(child) }
  }

  /** Rejects when the process has not ended within the limit; it is counted from the call. */
  async function within(exited: Promise<number | string | null>, limitMs: number): Promise<number | string | null> {
    const limit = AbortSignal.timeout(limitMs)
    return Promise.race([exited, once(limit, 'abort').then(() => 'still runs')])
  }

  /** The daemon on fixed ports, whose answers tell that it runs also when it cannot say so. */
  const daemon = () => [
    ...commandLine('registry', directory, ['--registry-addr', '--bootstrap-kind']),
    '--registry-addr=127.0.0.1:5000',
    '--static-bootstrap-peers=127.0.0.1:1',
  ]
  const ready = () =>
    eventually(async () =>
      expect((await fetch('http://127.0.0.1:5000/livez').catch(() => undefined))?.status).toBe(200),
    )

  it.each([
    { name: 'pipes without a reader', stream: brokenPipe },
    { name: 'full pipes', stream: fullPipe },
    { name: 'a full disk', stream: fullDisk },
  ])('of the daemon ends at SIGTERM with its output on $name', async ({ stream }) => {
    for (const [stdout, stderr] of [
      [stream(), 'ignore'],
      ['ignore', stream()],
      [stream(), stream()],
    ] as const) {
      const { child, exited } = start(daemon(), stdout, stderr)
      await ready()
      child.kill('SIGTERM')
      expect(await within(exited, endMs)).toBe(0)
    }
  })

  it('of the daemon ends when the reader of its log leaves while it stops', async () => {
    const { child, exited } = start(daemon(), 'ignore', 'pipe')
    await ready()
    child.stderr?.once('data', () => child.stderr?.destroy())
    child.kill('SIGTERM')
    expect(await within(exited, endMs)).toBe(0)
  })

  it('of the daemon ends at a second signal at once, with its output on a full pipe', async () => {
    const { child, exited } = start([...daemon(), '--shutdown-grace=1h'], fullPipe(), fullPipe())
    await ready()
    child.kill('SIGTERM')
    child.kill('SIGINT')
    expect(await within(exited, 3_000)).toSatisfy((code) => code === 1 || code === 0)
  })

  it('ends quietly when its output has no reader', async () => {
    for (const args of [['version'], ['--help'], ['registry', '--help'], ['benchmark', 'kubernetes', 'rights']]) {
      const child = spawn(spegel, args, { stdio: ['ignore', brokenPipe(), 'pipe'] })
      children.push(child)
      let errors = ''
      child.stderr?.on('data', (data: Buffer) => (errors += data.toString()))
      expect([await within(exitOf(child), 30_000), errors]).toEqual([0, ''])
    }
  })

  it('says that its result is lost on a full disk', async () => {
    const child = spawn(spegel, ['version'], { stdio: ['ignore', fullDisk(), 'pipe'] })
    children.push(child)
    let errors = ''
    child.stderr?.on('data', (data: Buffer) => (errors += data.toString()))
    expect(await within(exitOf(child), 30_000)).toBe(1)
    expect(errors).toMatch(/^spegel-ts: standard output: ENOSPC.*: free space on the file system\n$/)
  })

  /** A server that takes connections and never answers. */
  async function silentServer(): Promise<string> {
    const server = createServer(() => undefined).listen(0, '127.0.0.1')
    servers.push(server)
    await once(server, 'listening')
    const address = server.address()
    return typeof address === 'object' ? `127.0.0.1:${address?.port}` : ''
  }

  async function basicAuthThatHangs(): Promise<string> {
    await mkdir(join(directory, 'auth'))
    fifo('auth/username')
    return `--basic-auth-dir=${join(directory, 'auth')}`
  }

  const waits: Record<string, () => string[] | Promise<string[]>> = {
    'configuration, which reads a FIFO': async () => [
      ...commandLine('configuration', directory),
      await basicAuthThatHangs(),
    ],
    'registry, which reads a FIFO at its start': async () => [
      ...commandLine('registry', directory, ['--shutdown-grace']),
      '--shutdown-grace=0s',
      await basicAuthThatHangs(),
    ],
    'cleanup, which answers /readyz': () => commandLine('cleanup', directory),
    'cleanup-wait, whose endpoint is silent': async () => [
      ...commandLine('cleanup-wait', directory, ['--probe-endpoint']),
      `--probe-endpoint=${await silentServer()}`,
    ],
    'cleanup-wait, whose endpoint refuses': () => commandLine('cleanup-wait', directory),
    'benchmark network serve': () => commandLine('benchmark network serve', directory),
    'benchmark network run, whose agent is silent': async () => [
      ...commandLine('benchmark network run', directory, ['--path']),
      `--path=a=${await silentServer()}`,
      '--agents-timeout=5m',
    ],
    'benchmark generate, which makes an image': () => [
      ...commandLine('benchmark generate', directory, ['--size']),
      '--size=2GB',
    ],
    'benchmark kubernetes clear, whose socket is silent': async () => {
      const path = join(directory, 'silent.sock')
      const server = createServer(() => undefined).listen(path)
      servers.push(server)
      await once(server, 'listening')
      return [
        ...commandLine('benchmark kubernetes clear', directory, ['--containerd-sock']),
        `--containerd-sock=${path}`,
      ]
    },
  }

  it.each(
    Object.entries(waits).map(([name, args], index) =>
      index % 2 === 0
        ? { name, args, signal: 'SIGTERM' as const, code: 143 }
        : { name, args, signal: 'SIGINT' as const, code: 130 },
    ),
  )('of $name, ends at the first $signal', async ({ args, signal, code }) => {
    const child = spawn(spegel, await args(), { stdio: ['ignore', 'ignore', 'pipe'] })
    children.push(child)
    let errors = ''
    child.stderr?.on('data', (data: Buffer) => (errors += data.toString()))
    const exited = exitOf(child)
    await eventually(() => expect(catchesSigterm(child.pid ?? 0)).toBe(true))
    // No event tells that a command has begun to wait. Node's own handlers, which end it by the signal, come first.
    await new Promise((resolve) => setTimeout(resolve, 700))
    child.kill(signal)
    expect([0, code, signal]).toContain(await within(exited, endMs))
    expect(errors).not.toMatch(/this is a bug|\n\s+at /)
  })
})

async function exitOf(child: ChildProcess): Promise<number | string | null> {
  await once(child, 'exit')
  return child.exitCode ?? child.signalCode
}

/** Node is up, and the program has installed its handlers. */
function catchesSigterm(pid: number): boolean {
  const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return ((BigInt(`0x${caught}`) >> 14n) & 1n) === 1n
}
