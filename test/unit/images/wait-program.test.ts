import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitProgram } from '../../../src/images/wait-program.ts'
import { waitUntil } from '../../../src/testbed/process.ts'

const native = process.arch === 'arm64' ? 'arm64' : 'amd64'

describe(`the program for ${native}, run here`, () => {
  let folder: string
  let program: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'wait-'))
    program = join(folder, 'wait')
    await writeFile(program, waitProgram(native), { mode: 0o755 })
  })
  afterAll(() => rm(folder, { recursive: true }))

  it.each(['SIGTERM', 'SIGINT'] as const)('waits, and ends with 0 on %s', async (signal) => {
    const child = spawn(program)
    await waiting(child, Number(child.pid))
    child.kill(signal)
    expect(await once(child, 'exit')).toEqual([0, null])
  })

  it('goes on waiting after it was stopped and continued', async () => {
    const child = spawn(program)
    await waiting(child, Number(child.pid))
    child.kill('SIGSTOP')
    await waitUntil('stopped', async () => (await state(Number(child.pid))) === 'T', { timeoutMs: 5_000, child })
    child.kill('SIGCONT')
    await waiting(child, Number(child.pid))
    child.kill('SIGTERM')
    expect(await once(child, 'exit')).toEqual([0, null])
  })

  // Only root may make process namespaces; `npm test` runs as root.
  it.skipIf(process.getuid?.() !== 0).each(['SIGTERM', 'SIGINT'] as const)(
    'ends with 0 on %s as the first process of a container',
    async (signal) => {
      const child = spawn('unshare', ['--pid', '--fork', '--kill-child', program])
      try {
        await waitUntil('forked', async () => (await childOf(Number(child.pid))) > 0, { timeoutMs: 5_000, child })
        const pid = await childOf(Number(child.pid))
        await waiting(child, pid)
        process.kill(pid, signal)
        expect(await once(child, 'exit')).toEqual([0, null])
      } finally {
        child.kill('SIGKILL')
      }
    },
  )
})

describe.each([
  ['amd64', 62],
  ['arm64', 183],
] as const)('the program for %s', (architecture, machine) => {
  it('is a small static executable', () => {
    const elf = waitProgram(architecture)
    expect(elf.length).toBeLessThan(256)
    expect(elf.subarray(0, 4).toString('latin1')).toBe('\x7fELF')
    expect(elf.readUInt16LE(18)).toBe(machine)
    expect(elf.readUInt16LE(56), 'one program header: no interpreter').toBe(1)
  })
})

/** Until the process sleeps in rt_sigtimedwait: not before would a first process hear a signal. */
async function waiting(child: ChildProcess, pid: number): Promise<void> {
  const number = native === 'amd64' ? '128' : '137'
  const asleep = async () => (await readFile(`/proc/${pid}/syscall`, 'utf8')).split(' ')[0] === number
  await waitUntil('waiting for a signal', asleep, { timeoutMs: 5_000, child })
}

async function state(pid: number): Promise<string | undefined> {
  return (await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ')[2]
}

async function childOf(pid: number): Promise<number> {
  return Number((await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim())
}
