/** All that is said about one result, and its spelling for a terminal and as Markdown. */
import { cells } from './cells.ts'
import { compareMirrors } from './comparison.ts'
import { printable } from './format.ts'
import type { Measurements } from './measurements.ts'
import { bytesPlot } from './plots/bytes.ts'
import type { Plot } from './plots/chart.ts'
import { pullTimesPlot } from './plots/pull-times.ts'
import { wavesPlot } from './plots/waves.ts'
import type { Fact } from './set-up.ts'
import { type Summary, summary } from './summary.ts'
import { type Table, markdownTable, markdownText, terminalTable } from './table.ts'
import { comparisonTable, costTable, pullTable, requestTable, roundTable } from './tables.ts'

export interface Section {
  name: string
  path: string
  summary: Summary
  tables: readonly Table[]
  everyRound: Table
  setUp: readonly Fact[]
  plots: readonly Plot[]
}

/** A terminal is short: of many failures these are printed, the report has all. */
const failuresInTerminal = 10

export function section(measurements: Measurements): Section {
  const { mirrors } = measurements
  const requests = requestTable(measurements)
  const pairs = mirrors.flatMap((baseline, index) =>
    mirrors.slice(index + 1).map((other) => compareMirrors(measurements, baseline, other)),
  )
  return {
    name: measurements.name,
    path: measurements.path,
    summary: summary(measurements),
    tables: [
      pullTable(measurements),
      costTable(measurements),
      ...pairs.map(comparisonTable),
      ...(requests === undefined ? [] : [requests]),
    ],
    everyRound: roundTable(measurements),
    setUp: measurements.setUp,
    plots: plots(measurements),
  }
}

export function terminalSection({ name, path, summary: said, tables, setUp }: Section): string {
  const [failed = '', ...each] = said.failures
  const more = each.length - failuresInTerminal
  const lines = [
    `${name} (${path})`,
    '',
    failed,
    ...each.slice(0, failuresInTerminal).map((line) => `  ${line}`),
    ...(more > 0 ? [`  … and ${more} more`] : []),
    '',
    ...said.headlines,
    ...said.rounds,
  ]
  return [
    lines.map(printable).join('\n'),
    ...tables.map(terminalTable),
    ['How it was measured', '', ...setUp.map(({ what, value }) => `  ${printable(`${what}: ${value}`)}`)].join('\n'),
  ].join('\n\n')
}

export function markdownSection({ name, summary: said, tables, everyRound, setUp, plots: drawn }: Section): string {
  const [failed = '', ...each] = said.failures
  const list = (lines: readonly string[]) => lines.map((line) => `- ${markdownText(line)}`).join('\n')
  return [
    `# ${markdownText(name)}`,
    `**${markdownText(failed)}**`,
    list(each),
    list([...said.headlines, ...said.rounds]),
    ...tables.map(markdownTable),
    '## Plots',
    ...drawn.map((plot) => `![${markdownText(plot.description)}](${encodeURI(plotFileName(plot.name))}.svg)`),
    markdownTable(everyRound),
    '## How it was measured',
    list(setUp.map(({ what, value }) => `${what}: ${value}`)),
  ]
    .filter(Boolean)
    .join('\n\n')
}

/** Names of images come from files: nothing in them may lead to another folder. */
export function plotFileName(name: string): string {
  return name.replaceAll(/[^\w.-]+/g, '-').replace(/^\.+/, '')
}

function plots(measurements: Measurements): Plot[] {
  const { images, mirrors } = measurements
  const all = cells(measurements)
  const ofImages = images.flatMap((image) => {
    const own = all.filter((cell) => cell.image === image)
    return own.length === 0 ? [] : [pullTimesPlot(image, own, mirrors), wavesPlot(image, own, mirrors)]
  })
  const bytes = bytesPlot(images, all, mirrors)
  return bytes === undefined ? ofImages : [...ofImages, bytes]
}
