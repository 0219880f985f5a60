/** Every option of every command with wrong values, by flag, alias and environment: one line each, never a stack. */
import { describe, expect, it } from 'vitest'
import { runCli } from '../../../src/cli/cli.ts'
import { command } from '../../../src/cli/command.ts'
import { commands } from '../../../src/cli/commands.ts'
import { badValues, specs, spellings } from '../../support/bad-values.ts'

/** As the real ones, but a command line that is understood has no effect. */
const parsedOnly = commands.map(({ name, summary, table }) => command(name, summary, table, () => Promise.resolve()))

async function run(args: readonly string[], env: Readonly<Record<string, string>>) {
  let stderr = ''
  const code = await runCli(
    args,
    {
      env,
      commandLine: [],
      write: () => undefined,
      writeError: (text) => (stderr += text),
      isTerminal: false,
      stop: new AbortController().signal,
    },
    parsedOnly,
  )
  return { code, stderr }
}

describe('wrong values of options', () => {
  let triedCount = 0

  for (const { name, table } of commands) {
    // An option that is required fails for want of its value: an error about another option is as good.
    const required = specs(table).flatMap(({ flag, parse }) => {
      try {
        parse(undefined)
        return []
      } catch {
        return [flag]
      }
    })

    for (const spec of specs(table)) {
      it(`${name} ${spec.flag} ${spec.placeholder}: one line that names the option`, async () => {
        const { refused, odd } = badValues(spec)
        for (const value of [...refused, ...odd]) {
          for (const { args, env } of spellings(spec, value)) {
            triedCount += 1
            const { code, stderr } = await run([...name.split(' '), ...args], env)
            const shown = `${JSON.stringify({ args, env }).slice(0, 200)}: ${stderr}`
            expect(stderr, shown).not.toMatch(/this is a bug|\n\s+at /)
            if (code === 0) {
              expect(stderr, shown).toBe('')
              expect(refused, shown).not.toContain(value)
              continue
            }
            expect(code, shown).toBe(2)
            expect(stderr, shown).toMatch(/^spegel-ts: [^\n]+\n$/)
            const named = [spec.flag, ...required].some((flag) => stderr.includes(flag))
            expect(named, `${shown} names the option`).toBe(true)
            const [variable] = Object.keys(env)
            if (variable !== undefined && stderr.includes(spec.flag) && !required.includes(spec.flag)) {
              expect(stderr, `${shown} names the variable`).toContain(variable)
            }
          }
        }
      })

      it(`${name} ${spec.flag} without a value: one line`, async () => {
        const { code, stderr } = await run([...name.split(' '), spec.flag], {})
        triedCount += 1
        expect(stderr).not.toMatch(/this is a bug|\n\s+at /)
        if (spec.placeholder !== '[bool]') expect(code).toBe(2)
        if (code !== 0) expect(stderr).toMatch(/^spegel-ts: [^\n]+\n$/)
      })
    }
  }

  it('has tried every option of every command', () => {
    const options = commands.flatMap(({ table }) => specs(table))
    process.stderr.write(`bad values: ${commands.length} commands, ${options.length} options, ${triedCount} tried\n`)
    expect(triedCount).toBeGreaterThan(options.length * 5)
  })
})
