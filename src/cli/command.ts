/** What a command is: a name, a table of options, and what to do with them. */
import { type OptionTable, parseCommandLine } from './option.ts'

/** What a command has of the process around it. */
export interface Surroundings {
  env: Readonly<Record<string, string | undefined>>
  /** How the process was called: the program, and its arguments. */
  commandLine: readonly string[]
  write: (text: string) => void
  writeError: (text: string) => void
  /** Somebody watches what is written to standard error. */
  isTerminal: boolean
  /** Aborts when the process is asked to stop. */
  stop: AbortSignal
}

export interface CommandSpec {
  name: string
  summary: string
  table: OptionTable<Record<string, unknown>>
  run: (args: readonly string[], surroundings: Surroundings) => Promise<void>
}

export function command<T>(
  name: string,
  summary: string,
  table: OptionTable<T>,
  run: (options: T, surroundings: Surroundings) => Promise<void>,
): CommandSpec {
  return {
    name,
    summary,
    table,
    async run(args, surroundings) {
      const parsed = parseCommandLine({ name, summary }, table, args, surroundings.env)
      if (parsed.kind === 'help') surroundings.write(parsed.text)
      else await run(parsed.options, surroundings)
    },
  }
}
