/** Wrong values for every kind of option, and the spellings under which each option can be given. */
import {
  type OptionSpec,
  type OptionTable,
  type listPlaceholders,
  type textPlaceholders,
} from '../../src/cli/option.ts'

export interface BadValues {
  /** Never a value of this kind: the command line is refused. */
  refused: readonly string[]
  /** A value of this kind that an option may refuse, or that fails when the command uses it. */
  odd: readonly string[]
}

type Placeholder = (typeof textPlaceholders)[number] | (typeof listPlaceholders)[number]

/** Odd for every kind: empty, blank, other scripts, control characters, a template that nobody filled in, very long. */
const oddTexts = [
  '',
  ' ',
  'ä',
  '日本',
  '\u001B[31m',
  'a\nb',
  '$(NODE_IP)',
  '{{ .Values.x }}',
  '-1',
  'a,b',
  '"',
  "'",
  '%00',
  'x'.repeat(5_000),
]
const paths = ['/none', '/none/none', '/dev/null', '/dev/null/x', '/', '.', `/${'x'.repeat(300)}`]
const names = ['/', '..', '.', 'A B', '*', 'a/b/c', '-']
const images = ['/', ':', '@', 'a b', 'a@sha256:0', 'http://', '/none', 'v1-0MB-1', 'v1-10MB-0', 'v1-99999GB-1']

const badTexts: Readonly<Record<Placeholder, BadValues>> = {
  '<addr>': {
    refused: [
      'x',
      '5000',
      'x:',
      ':x',
      ':-1',
      ':65536',
      ':99999999',
      'fe80::1:80',
      'http://a:80',
      'a:80:80',
      '[::1',
      '[::1]',
      ' :80',
    ],
    odd: ['', ':0', '[]:80', '[x]:80', 'a b:80', '[fe80::1%none]:80', '*:80'],
  },
  '<file>': { refused: [], odd: [...oddTexts, ...paths] },
  '<folder>': { refused: [], odd: [...oddTexts, ...paths] },
  '<host/repository>': { refused: [], odd: [...oddTexts, ...images] },
  '<host>': { refused: [], odd: [...oddTexts, ...names] },
  '<image>': { refused: [], odd: [...oddTexts, ...images] },
  '<name>': { refused: [], odd: [...oddTexts, ...names] },
  '<namespace/name>': { refused: ['x', '/', 'a/', '/a', 'a/b/c', ' '], odd: [''] },
  '<rate>': { refused: ['x', '-1mbit', '10', '10mb', 'mbit', '1.mbit', ' '], odd: [''] },
  '<size>': {
    refused: ['', ' ', 'x', '0', '-1MB', '10mb', '1.5MB', '10TB', '99999999999999999999GB', 'MB'],
    odd: [],
  },
  '<text>': { refused: [], odd: oddTexts },
  '<uid:gid>': { refused: ['', 'x', '1', '1:', ':1', 'root:root', '-1:0', '1:1:1', '9999999999:1', ' '], odd: [] },
  '<url>': { refused: [], odd: [...oddTexts, 'http://', 'ftp://a', '//a', 'http://a:99999', 'http://[::1', 'a:b@c'] },
  '<image...>': { refused: [], odd: [...oddTexts, ...images] },
  '<ip...>': {
    refused: [
      'x',
      '10.0.0',
      '10.0.0.256',
      '10.0.0.1:80',
      '10.0.0.1/24',
      '[::1]',
      'fe80::1%eth0',
      '0.0.0.0',
      '::',
      '224.0.0.1',
      'ff02::1',
      '255.255.255.255',
      '$(IP)',
    ],
    odd: ['', '::ffff:10.0.0.1'],
  },
  '<mirror...>': { refused: [], odd: [...oddTexts, '=', 'a=', '=b', 'none', 'a=b'] },
  '<name...>': { refused: [], odd: [...oddTexts, ...names] },
  '<name=addr...>': { refused: [], odd: [...oddTexts, '=', 'a=', '=b', 'a=b:99999', 'a=:1', 'a=[::1'] },
  '<path...>': { refused: [], odd: [...oddTexts, ...paths] },
  '<peer...>': { refused: ['x', '10.0.0.1', 'a:80', '/ip4', '/ip4/10.0.0.1', '10.0.0.1:x', '$(IP)'], odd: [''] },
  '<regex...>': { refused: ['(', '[', '*', 'a{2,1}', '\\'], odd: ['', '.*', '(a+)+$'] },
  '<url...>': {
    refused: [
      'x',
      'http://',
      'ftp://a',
      '//a',
      'http://a:99999',
      'http://[::1',
      'http://a/b',
      'http://a?b',
      'http://u:p@a',
      '$(IP)',
    ],
    odd: ['', '_default', '*'],
  },
}

/** Throws for a kind that is not in the table: a new kind needs its bad values. */
export function badValues({ flag, placeholder }: OptionSpec<unknown>): BadValues {
  if (placeholder === '[bool]') return { refused: ['', 'x', '2', 'TRUE FALSE', 'nein', ' '], odd: ['T', 'off'] }
  if (placeholder === '<number>') {
    const refused = ['', ' ', 'x', '-1', '1.5', '1e3', '0x10', '١', '9007199254740993', '99999999999999999999', 'NaN']
    return { refused, odd: ['0', '1', '007', '65536', '4294967296'] }
  }
  if (placeholder === '<duration>') {
    const refused = ['', ' ', 'x', '1', '-1s', '5 s', '1d', 's', '1.2.3s', '1000000h', 'NaN', 'Infinity']
    return { refused, odd: ['0', '0s', '1ns', '500h'] }
  }
  if (/^<[^<>|]+(?:\|[^<>|]+)+>$/.test(placeholder)) return { refused: ['', ' ', 'x', placeholder, ','], odd: [] }
  const found = Object.entries(badTexts).find(([kind]) => kind === placeholder)?.[1]
  if (found === undefined) throw new Error(`${flag}: ${placeholder} has no bad values in test/support/bad-values.ts`)
  return found
}

export interface Given {
  args: readonly string[]
  env: Readonly<Record<string, string>>
}

/** The value by flag, by every alias, and by every environment variable, as an operator writes it. */
export function spellings({ flag, env, aliases, placeholder }: OptionSpec<unknown>, value: string): Given[] {
  const quoted = placeholder.endsWith('...>') && /[,"]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value
  return [{ flag, env }, ...aliases].flatMap((spelling) => [
    { args: [`${spelling.flag}=${value}`], env: {} },
    ...(spelling.env === undefined ? [] : [{ args: [], env: { [spelling.env]: quoted } }]),
  ])
}

/** The options of a command, without the types of their values. */
export function specs(table: OptionTable<Record<string, unknown>>): OptionSpec<unknown>[] {
  return Object.values<OptionSpec<unknown>>(table)
}
