/** What a command is: a name, a table of options, and what to do with them. */
import { formatDuration } from '../lib/duration.ts'
import { UserError } from '../lib/errors.ts'
import { closeGraceMs, measurementGraceMs } from '../limits.ts'
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
  /** Aborts with a StopSignal when the process is asked to stop. */
  stop: AbortSignal
}

export interface CommandSpec {
  name: string
  summary: string
  table: OptionTable<Record<string, unknown>>
  run: (args: readonly string[], surroundings: Surroundings) => Promise<void>
}

/** Of commands that end processes, network namespaces or pods of theirs before they end. */
export const measurementGrace = () => measurementGraceMs

/** `graceMs`: how long the command may take to stop when it is asked to. */
export function command<T>(
  name: string,
  summary: string,
  table: OptionTable<T>,
  run: (options: T, surroundings: Surroundings) => Promise<void>,
  graceMs: (options: T) => number = () => closeGraceMs,
): CommandSpec {
  return {
    name,
    summary,
    table,
    async run(args, surroundings) {
      const parsed = parseCommandLine({ name, summary }, table, args, surroundings.env)
      if (parsed.kind === 'help') surroundings.write(parsed.text)
      else await withinGrace(run(parsed.options, surroundings), surroundings.stop, graceMs(parsed.options))
    },
  }
}

/** Rejects when the promise has not settled this long after the signal: a file system or a server may never answer. */
function withinGrace(running: Promise<void>, stop: AbortSignal, graceMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    const onStop = () => {
      const late = () => reject(new UserError(`did not stop within ${formatDuration(graceMs)}: ended`))
      timer = setTimeout(late, graceMs)
    }
    if (stop.aborted) onStop()
    else stop.addEventListener('abort', onStop, { once: true })
    running.then(resolve, reject).finally(() => {
      stop.removeEventListener('abort', onStop)
      clearTimeout(timer)
    })
  })
}
