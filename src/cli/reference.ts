/** The reference pages below docs/, made from the tables that the program itself uses. `npm run docs` writes them. */
import { metricSpecs } from '../metrics.ts'
import { commands } from './commands.ts'
import type { OptionSpec } from './option.ts'

const head = (title: string, source: string) =>
  `# ${title}\n\nGenerated from \`${source}\` by \`npm run docs\`; a test fails when it is not up to date.\n`

export function configurationReference(): string {
  const sections = commands.map(({ name, summary, table }) =>
    [
      `## spegel-ts ${name}`,
      '',
      summary,
      '',
      '| flag | environment | default | meaning |',
      '| --- | --- | --- | --- |',
      ...Object.values<OptionSpec<unknown>>(table).map(optionRow),
      '',
    ].join('\n'),
  )
  return [
    head('Configuration', 'src/cli/options.ts'),
    'A flag comes before the environment, the environment before the default. Flags, environment names and meanings are',
    'those of Spegel v0.7; `--log-level` may stand before the command. Durations are written as Go writes them: `20ms`,',
    '`1m30s`. Lists are separated by spaces after the flag, by commas in the environment. Switches take `true` or `false`.',
    '',
    ...sections,
  ].join('\n')
}

function optionRow({ flag, placeholder, env, defaultText, help, aliases }: OptionSpec<unknown>): string {
  const flags = [`\`${flag} ${placeholder}\``, ...aliases.map((alias) => `\`${alias.flag}\``)]
  const names = [env, ...aliases.map((alias) => alias.env)].filter((name) => name !== undefined)
  const cells = [
    flags.join(', '),
    names.map((name) => `\`${name}\``).join(', '),
    defaultText === undefined || defaultText === '' ? '' : `\`${defaultText}\``,
    help,
  ]
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

export function metricsReference(): string {
  const rows = Object.values(metricSpecs).map(
    ({ name, type, labels, help }) =>
      `| \`${name}\` | ${type} | ${Object.keys(labels)
        .map((label) => `\`${label}\``)
        .join(', ')} | ${help} |`,
  )
  return [
    head('Metrics', 'src/metrics.ts'),
    'On `--metrics-addr`, path `/metrics`, next to `process_*` and `nodejs_*` of the runtime. Every combination of label',
    'values that the program itself knows exists with value 0 from the start, so that `rate()` and `increase()` see the',
    'first burst. The values of `registry` and `code` come from outside: their series appear with the first use, except',
    '`spegel_mirror_requests_total` of configured registries and of `other`, which counts all registries beyond 100.',
    '`nodejs_eventloop_lag_*` are measured every 50 ms and do not include that interval.',
    '',
    '| name | type | labels | meaning |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n')
}
