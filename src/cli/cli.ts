/** Finds the command, runs it, and turns what went wrong into one line and an exit code. */
import { UserError, errorMessage } from '../lib/errors.ts'
import type { CommandSpec, Surroundings } from './command.ts'
import { commands } from './commands.ts'
import { UsageError } from './option.ts'

/** 0 success, 1 failure, 2 a command line that cannot be understood. Global options may stand before the command. */
export async function runCli(args: readonly string[], surroundings: Surroundings): Promise<number> {
  try {
    const found = findCommand(args)
    if (found === undefined) return noCommand(args, surroundings)
    await found.command.run(found.rest, surroundings)
    return 0
  } catch (error) {
    if (error instanceof UserError) surroundings.writeError(`spegel-ts: ${error.message}\n`)
    else surroundings.writeError(`spegel-ts: this is a bug: ${errorMessage(error)}\n${stackOf(error)}\n`)
    return error instanceof UsageError ? 2 : 1
  }
}

/** A command's name may have several words: `benchmark measure`. */
function findCommand(args: readonly string[]): { command: CommandSpec; rest: string[] } | undefined {
  for (const [at] of args.entries()) {
    const command = commands.find(({ name }) => name.split(' ').every((word, index) => args[at + index] === word))
    if (command !== undefined) return { command, rest: args.toSpliced(at, command.name.split(' ').length) }
  }
  return undefined
}

function noCommand(args: readonly string[], { write }: Surroundings): number {
  const help = [
    'Usage: spegel-ts COMMAND [OPTION...]',
    '',
    ...commands.map(({ name, summary }) => `  ${name.padEnd(20)}${summary}`),
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
