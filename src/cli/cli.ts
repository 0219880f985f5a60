/** Finds the command, runs it, and turns what went wrong into one line and an exit code. */
import { UserError, errorMessage } from '../lib/errors.ts'
import { type Surroundings, commands } from './commands.ts'
import { UsageError } from './option.ts'

export interface CliSurroundings extends Surroundings {
  writeError: (text: string) => void
}

/** 0 success, 1 failure, 2 a command line that cannot be understood. Global options may stand before the command. */
export async function runCli(args: readonly string[], surroundings: CliSurroundings): Promise<number> {
  try {
    const at = args.findIndex((arg) => commands.some(({ name }) => name === arg))
    const found = commands.find(({ name }) => name === args[at])
    if (found === undefined) return noCommand(args, surroundings)
    await found.run(args.toSpliced(at, 1), surroundings)
    return 0
  } catch (error) {
    if (error instanceof UserError) surroundings.writeError(`spegel-ts: ${error.message}\n`)
    else surroundings.writeError(`spegel-ts: this is a bug: ${errorMessage(error)}\n${stackOf(error)}\n`)
    return error instanceof UsageError ? 2 : 1
  }
}

function noCommand(args: readonly string[], { write }: CliSurroundings): number {
  const help = [
    'Usage: spegel-ts COMMAND [OPTION...]',
    '',
    ...commands.map(({ name, summary }) => `  ${name.padEnd(16)}${summary}`),
    '',
    'spegel-ts COMMAND --help lists the options of a command.',
    '',
  ].join('\n')
  if (args.some((arg) => arg === '--help' || arg === '-h' || arg === 'help')) {
    write(help)
    return 0
  }
  const names = commands.map(({ name }) => name).join(', ')
  const problem = args.length === 0 ? 'no command' : `"${args[0]}" is not a command`
  throw new UsageError(`${problem}: choose one of ${names}`)
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? '') : ''
}
