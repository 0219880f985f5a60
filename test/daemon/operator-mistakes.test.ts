/**
 * Every command with every option that names a file, a directory, an address or a name: missing, of another type, not
 * permitted, on a full or a read-only file system, taken, unreachable. One line each, never a stack, never a hang.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { describe, expect, it } from 'vitest'
import type { MistakeResult } from '../support/operator-mistakes-process.ts'
import { spawnInSandbox } from '../support/sandbox.ts'
import { printedSeed } from '../support/seed.ts'

const spegel = join(import.meta.dirname, '../../bin/spegel-ts')
/** Of the values, each time others, so that CI takes seconds; MISTAKES_SHARE=1 tries all of them. */
const share = Number(process.env['MISTAKES_SHARE'] ?? 0.05)
/** Longer than the grace time of a command, on a machine that is busy with other tests. */
const hangMs = 60_000

describe('mistakes of operators', () => {
  it.each([
    { user: 'root', runsMin: 50 },
    { user: 'nobody', runsMin: 35 },
  ] as const)(
    'as $user each give one line that says what to do',
    async ({ user, runsMin }) => {
      const directory = await mkdtemp(join(tmpdir(), 'mistakes-'))
      const program = join(directory, 'checkout/test/support/operator-mistakes-process.ts')
      const seed = printedSeed(`operator mistakes as ${user}`)
      const child = spawnInSandbox(directory, user, ['node', program, directory, String(seed), String(share)])
      let errors = ''
      child.stderr.on('data', (data: Buffer) => (errors += data.toString()))
      const ended = once(child, 'close')
      const results: MistakeResult[] = []
      for await (const line of createInterface(child.stdout)) results.push(JSON.parse(line) as MistakeResult)
      await ended
      await rmdir(directory)
      expect(errors).toBe('')
      expect(child.exitCode).toBe(0)

      const wrong = results.flatMap(({ args, code, text, tookMs }) => {
        const lines = text.split('\n').filter((line) => line.startsWith('spegel-ts: '))
        const isFailure = code === 1 || code === 2
        const problems = [
          ...(/this is a bug|\n\s+at /.test(text) ? ['a stack'] : []),
          ...([0, 1, 2, 143].includes(code) ? [] : ['exit code']),
          ...(isFailure && lines.length !== 1 ? ['not one line'] : []),
          ...(tookMs > hangMs ? ['hangs'] : []),
        ]
        return problems.length === 0
          ? []
          : [{ args: args.join(' ').slice(-500), problems, code, text: text.slice(0, 500) }]
      })
      const failed = results.filter(({ code }) => code === 1 || code === 2).length
      process.stderr.write(
        `operator mistakes as ${user}: ${results.length} command lines, ${failed} refused or failed\n`,
      )
      expect(wrong).toEqual([])
      expect(results.length).toBeGreaterThan(runsMin)
    },
    240_000,
  )

  it.each([
    // A namespace of the user has limits of its own.
    ['inotify instances', ['unshare', '--user', '--map-root-user'], 'echo 0 > /proc/sys/user/max_inotify_instances'],
    ['open files', ['sh', '-c', 'exec "$@"', 'sh'], 'ulimit -n 24'],
  ])('give one line where no %s are left', async (_what, inside, limit) => {
    const layout = await mkdtemp(join(tmpdir(), 'mistakes-'))
    const command = `${limit}; exec "$0" registry --oci-layout "$1" --bootstrap-kind static --registry-addr 127.0.0.1:0 --router-addr 127.0.0.1:0 --metrics-addr 127.0.0.1:0`
    const [program = '', ...args] = inside
    const child = spawn(program, [...args, 'sh', '-c', command, spegel, layout], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let text = ''
    child.stderr.on('data', (data: Buffer) => (text += data.toString()))
    await once(child, 'close')
    await rmdir(layout)
    expect(text.split('\n').filter((line) => !line.startsWith('{'))).toEqual([
      expect.stringMatching(/^spegel-ts: .*EMFILE.*(inotify|ulimit -n)/),
      '',
    ])
    expect(child.exitCode).toBe(1)
  })
})
