/** Finds the command, runs it, and turns what went wrong into one line and an exit code. */
import { UserError, errorMessage } from '../lib/errors.ts'
import { StopSignal, isAbort } from '../lib/stop-signal.ts'
import { explainSystemError } from '../lib/system-error.ts'
import type { CommandSpec, Surroundings } from './command.ts'
import { commands as allCommands } from './commands.ts'
import { UsageError } from './option.ts'

/**
 * 0 success, 1 failure, 2 a command line that cannot be understood, 128 and the signal's number when a signal ended the
 * command before it was done. Global options may stand before the command.
 */
export async function runCli(
  args: readonly string[],
  surroundings: Surroundings,
  commands: readonly CommandSpec[] = allCommands,
): Promise<number> {
  try {
    const found = findCommand(commands, args)
    if (found === undefined) return noCommand(commands, args, surroundings)
    await found.command.run(found.rest, surroundings)
    return 0
  } catch (error) {
    const { stop, writeError } = surroundings
    const reason: unknown = stop.reason
    if (reason instanceof StopSignal && isAbort(error, stop)) {
      writeError(`spegel-ts: ${reason.message}\n`)
      return reason.exitCode
    }
    writeError(`spegel-ts: ${explain(error)}\n`)
    if (error instanceof UsageError) return 2
    return reason instanceof StopSignal ? reason.exitCode : 1
  }
}

/** One line for what an operator can fix; a bug of the program comes with its stack. */
export function explain(error: unknown): string {
  if (error instanceof UserError) return error.message.replaceAll(/\s*\n\s*/g, ' ')
  return explainSystemError(error) ?? `this is a bug: ${errorMessage(error)}\n${stackOf(error)}`
}

/** A command's name may have several words: `benchmark measure`. */
function findCommand(
  commands: readonly CommandSpec[],
  args: readonly string[],
): { command: CommandSpec; rest: string[] } | undefined {
  for (const [at] of args.entries()) {
    const command = commands.find(({ name }) => name.split(' ').every((word, index) => args[at + index] === word))
    if (command !== undefined) return { command, rest: args.toSpliced(at, command.name.split(' ').length) }
  }
  return undefined
}

function noCommand(commands: readonly CommandSpec[], args: readonly string[], { write }: Surroundings): number {
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
