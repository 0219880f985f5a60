/**
 * Options of a command as a table: one entry gives parsing, validation, help and documentation. A value comes from the
 * flag, else from the environment, else from the default. Tokens are read by commander; what they mean is decided here.
 */
import { Command, CommanderError, Option } from 'commander'
import { formatDuration, parseDuration } from '../lib/duration.ts'
import { UserError } from '../lib/errors.ts'

/** A command line that cannot be understood: exit code 2. */
export class UsageError extends UserError {}

/** The kind of a text value, as help shows it. The test of bad values (test/support/bad-values.ts) covers each kind. */
export const textPlaceholders = [
  '<addr>',
  '<file>',
  '<folder>',
  '<host/repository>',
  '<host>',
  '<image>',
  '<name>',
  '<namespace/name>',
  '<rate>',
  '<size>',
  '<text>',
  '<uid:gid>',
  '<url>',
] as const
export const listPlaceholders = [
  '<image...>',
  '<ip...>',
  '<mirror...>',
  '<name...>',
  '<name=addr...>',
  '<path...>',
  '<peer...>',
  '<regex...>',
  '<url...>',
] as const
type TextPlaceholder = (typeof textPlaceholders)[number]
type ListPlaceholder = (typeof listPlaceholders)[number]
/** The longest delay of a timer in Node, 24 days; a longer one would fire at once. */
const durationMaxMs = 2 ** 31 - 1

export interface OptionSpec<T> {
  /** With dashes: `--registry-addr`. */
  flag: string
  env: string | undefined
  /** In help: `<url>`, `<url...>` for lists, `[bool]` for switches. */
  placeholder: string
  help: string
  /** As a user would write it; undefined: none. */
  defaultText: string | undefined
  /** Other spellings of the same option, which the documentation mentions. */
  aliases: readonly { flag: string; env: string }[]
  /** Undefined: the option was given nowhere. Throws a UserError. */
  parse(values: readonly string[] | undefined): T
}

export type OptionTable<T> = { readonly [Name in keyof T]: OptionSpec<T[Name]> }

interface Common {
  flag: string
  env?: string
  help: string
  aliases?: readonly { flag: string; env: string }[]
}

export function textOption(spec: Common & { placeholder: TextPlaceholder; default: string }): OptionSpec<string>
export function textOption(spec: Common & { placeholder: TextPlaceholder }): OptionSpec<string | undefined>
export function textOption(
  spec: Common & { placeholder: TextPlaceholder; default?: string },
): OptionSpec<string | undefined> | OptionSpec<string> {
  return option(spec, spec.placeholder, spec.default, (values) => last(checkCharacters(values, spec)) ?? spec.default)
}

export function listOption(spec: Common & { placeholder: ListPlaceholder }): OptionSpec<readonly string[]> {
  return option(spec, spec.placeholder, undefined, (values) => checkCharacters(values, spec) ?? [])
}

/** No path, name or address has line breaks and the like. They come from a file that was read with its end. */
function checkCharacters(
  values: readonly string[] | undefined,
  { flag, placeholder }: { flag: string; placeholder: string },
): readonly string[] | undefined {
  // A mirror may be a script of several lines.
  const wrong = placeholder === '<mirror...>' ? undefined : values?.find((value) => /\p{Cc}/u.test(value))
  if (wrong === undefined) return values
  throw new UserError(`${flag}: ${JSON.stringify(wrong)} has a line break or another control character: remove it`)
}

export function boolOption(spec: Common & { default: boolean }): OptionSpec<boolean> {
  return option(spec, '[bool]', String(spec.default), (values) => {
    const text = last(values)
    if (text === undefined) return spec.default
    if (/^(true|1|t|yes|on)$/i.test(text)) return true
    if (/^(false|0|f|no|off)$/i.test(text)) return false
    throw new UserError(`${spec.flag}: "${text}" is neither true nor false`)
  })
}

export function durationOption(spec: Common & { defaultMs: number; minMs?: number }): OptionSpec<number> {
  const { minMs = 0 } = spec
  return option(spec, '<duration>', formatDuration(spec.defaultMs), (values) => {
    const text = last(values)
    if (text === undefined) return spec.defaultMs
    const durationMs = parseDuration(text)
    if (durationMs === undefined || durationMs < 0) {
      throw new UserError(
        `${spec.flag}: "${text}" is not a duration: write a number with a unit, such as 20ms or 1m30s`,
      )
    }
    if (durationMs < minMs || durationMs > durationMaxMs) {
      throw new UserError(`${spec.flag}: "${text}" is out of range: write ${formatDuration(minMs)} to 596h`)
    }
    return durationMs
  })
}

export function integerOption(spec: Common & { default: number; min: number; max: number }): OptionSpec<number> {
  return option(spec, '<number>', String(spec.default), (values) => {
    const text = last(values)
    if (text === undefined) return spec.default
    const number = /^\d+$/.test(text) ? Number(text) : Number.NaN
    if (Number.isNaN(number) || number < spec.min || number > spec.max) {
      throw new UserError(`${spec.flag}: "${text}" is not a whole number from ${spec.min} to ${spec.max}`)
    }
    return number
  })
}

export function choiceOption<const Choice extends string>(
  spec: Common & { choices: readonly Choice[]; default: Choice },
): OptionSpec<Choice>
export function choiceOption<const Choice extends string>(
  spec: Common & { choices: readonly Choice[] },
): OptionSpec<Choice | undefined>
export function choiceOption<const Choice extends string>(
  spec: Common & { choices: readonly Choice[]; default?: Choice },
): OptionSpec<Choice | undefined> {
  return option(spec, `<${spec.choices.join('|')}>`, spec.default, (values) => {
    const text = last(values)
    if (text === undefined) return spec.default
    const choice = spec.choices.find((candidate) => candidate.toLowerCase() === text.toLowerCase())
    if (choice === undefined) throw new UserError(`${spec.flag}: "${text}" is not one of ${spec.choices.join(', ')}`)
    return choice
  })
}

/** An option whose text means something more, or one that must be given. */
export function mapOption<From, To>(base: OptionSpec<From>, map: (value: From, flag: string) => To): OptionSpec<To> {
  return { ...base, parse: (values) => map(base.parse(values), base.flag) }
}

/** For an option whose empty value, as of a variable that is not set, would name the working directory or nothing. */
export function notEmpty<T extends string | readonly string[] | undefined>(value: T, flag: string): T {
  if (value === '' || (Array.isArray(value) && value.includes(''))) throw new UserError(`${flag}: the value is empty`)
  return value
}

function option<T>(
  spec: Common,
  placeholder: string,
  defaultText: string | undefined,
  parse: OptionSpec<T>['parse'],
): OptionSpec<T> {
  return {
    flag: spec.flag,
    env: spec.env,
    help: spec.help,
    aliases: spec.aliases ?? [],
    placeholder,
    defaultText,
    parse,
  }
}

function last(values: readonly string[] | undefined): string | undefined {
  return values?.at(-1)
}

export type ParsedCommandLine<T> = { kind: 'options'; options: T } | { kind: 'help'; text: string }

/** Throws a UsageError with one line. */
export function parseCommandLine<T>(
  command: { name: string; summary: string },
  table: OptionTable<T>,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): ParsedCommandLine<T> {
  const given = readTokens(command, table, args)
  if (typeof given === 'string') return { kind: 'help', text: given }
  const options: Partial<T> = {}
  for (const name of Object.keys(table) as (keyof T)[]) {
    const spec = table[name]
    const { values, env: source } = valuesOf(spec, given, env)
    try {
      options[name] = spec.parse(values)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      const message = error.message.includes(spec.flag) ? error.message : `${spec.flag}: ${error.message}`
      throw new UsageError(source === undefined ? message : `${message} (from the environment variable ${source})`)
    }
  }
  return { kind: 'options', options: options as T }
}

/** `env`: the variable that the values come from, if they do. */
function valuesOf(
  spec: OptionSpec<unknown>,
  given: ReadonlyMap<string, readonly string[]>,
  env: Readonly<Record<string, string | undefined>>,
): { values: readonly string[] | undefined; env?: string } {
  const spellings = [{ flag: spec.flag, env: spec.env }, ...spec.aliases]
  for (const { flag } of spellings) {
    const values = given.get(flag)
    if (values !== undefined) return { values }
  }
  for (const { env: name } of spellings) {
    const value = name === undefined ? undefined : env[name]
    if (name !== undefined && value !== undefined) {
      return { values: spec.placeholder.endsWith('...>') ? splitList(value) : [value], env: name }
    }
  }
  return { values: undefined }
}

/** Comma separated, quotes around what contains commas; empty means an empty list. */
function splitList(text: string): string[] {
  if (text.trim() === '') return []
  const fields = text.match(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g) ?? []
  return fields
    .map((field) => field.replace(/,$/, '').trim())
    .filter((field, index) => field !== '' || index < fields.length - 1)
    .map((field) => (field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field))
    .filter((field) => field !== '')
}

/** Values by flag, or the text of the help. */
function readTokens<T>(
  { name, summary }: { name: string; summary: string },
  table: OptionTable<T>,
  args: readonly string[],
): ReadonlyMap<string, readonly string[]> | string {
  const given = new Map<string, readonly string[]>()
  let help: string | undefined
  const command = new Command(`spegel-ts ${name}`)
    .description(summary)
    .exitOverride()
    .allowExcessArguments(false)
    .configureOutput({ writeOut: (text) => (help = text), writeErr: () => undefined })
  for (const spec of Object.values<OptionSpec<unknown>>(table)) {
    for (const { flag, isAlias } of [
      { flag: spec.flag, isAlias: false },
      ...spec.aliases.map((alias) => ({ flag: alias.flag, isAlias: true })),
    ]) {
      const declared = new Option(`${flag} ${spec.placeholder}`, describe(spec)).hideHelp(isAlias)
      command.addOption(declared)
      command.on(`option:${declared.name()}`, (value: string | null) => {
        given.set(flag, [...(given.get(flag) ?? []), value ?? 'true'])
      })
    }
  }
  try {
    command.parse([...args], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (help !== undefined) return help
    const message = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ')
    throw new UsageError(`${name}: ${message}: see spegel-ts ${name} --help`)
  }
  return given
}

function describe({ help, defaultText, env }: OptionSpec<unknown>): string {
  const notes = [
    ...(defaultText === undefined || defaultText === '' ? [] : [`default ${defaultText}`]),
    ...(env === undefined ? [] : [`env ${env}`]),
  ]
  return notes.length === 0 ? help : `${help} (${notes.join(', ')})`
}
