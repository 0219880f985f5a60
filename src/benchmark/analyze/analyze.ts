/** `benchmark analyze`: results in, tables on the terminal, and a report, Markdown and plots in a folder. */
import { join } from 'node:path'
import { writeFileAtomic } from '../../lib/atomic-file.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'
import { makeDirectory } from '../../lib/make-directory.ts'
import { compareResults } from './comparison.ts'
import { printable } from './format.ts'
import { load } from './load.ts'
import type { Measurements } from './measurements.ts'
import { renderSvg } from './plots/chart.ts'
import { networkSection } from './network/section.ts'
import { type ToPng, pngRenderer } from './plots/png.ts'
import { htmlReport } from './report.ts'
import { type Section, markdownSection, plotFileName, section, terminalSection } from './section.ts'
import { type Table, markdownTable, terminalTable } from './table.ts'
import { comparisonTable } from './tables.ts'

export interface AnalyzeOptions {
  /** Folders or files; several are compared, the first is the baseline. */
  paths: readonly string[]
  /** Undefined: nothing is written to disk. */
  outputDir?: string | undefined
  /** Takes what goes to the terminal. */
  write: (text: string) => void
}

/** Throws a UserError for a path that is no result. */
export async function analyze({ paths, outputDir, write }: AnalyzeOptions): Promise<void> {
  const { measurements, networks, leftOut } = await load(paths)
  const notes = leftOut.map((path) => `Left out, not a result: ${path}`)
  const sections = [...measurements.map(section), ...networks.map(networkSection)]
  const comparisons = comparedToFirst(measurements)
  for (const note of notes) write(`${printable(note)}\n`)
  for (const part of sections) write(`${terminalSection(part)}\n\n`)
  for (const table of comparisons) write(`${terminalTable(table)}\n\n`)
  if (outputDir === undefined) return
  const withoutPng = await writeReport(outputDir, sections, comparisons, notes)
  const kinds = withoutPng === undefined ? 'SVG and PNG' : 'SVG'
  write(`Written: ${printable(join(outputDir, 'report.html'))}, report.md, and each plot as ${kinds}\n`)
  if (withoutPng !== undefined) {
    write(`Without PNG files, which need installed packages, as a checkout has them: ${withoutPng}\n`)
  }
}

function comparedToFirst([first, ...others]: readonly Measurements[]): Table[] {
  if (first === undefined) return []
  return others.flatMap((other) => compareResults(first, other).map(comparisonTable))
}

interface OutputFile {
  name: string
  data: string | Buffer
}

/** Returns why there are no PNG files, if there are none. */
async function writeReport(
  folder: string,
  sections: readonly Section[],
  comparisons: readonly Table[],
  notes: readonly string[],
): Promise<string | undefined> {
  const toPng = await pngRenderer().catch(errorMessage)
  const files: OutputFile[] = []
  const drawn = sections.map((part, index) => {
    const plots = part.plots.map((plot) => ({ ...plot, name: plotName(plot.name, index, sections.length) }))
    const drawings = plots.map((plot) => {
      const svg = renderSvg(plot)
      files.push(...plotFiles(plotFileName(plot.name), svg, typeof toPng === 'string' ? undefined : toPng))
      return { svg, description: plot.description }
    })
    return { ...part, plots, drawings }
  })
  const markdown = [...drawn.map(markdownSection), ...comparisons.map(markdownTable)].join('\n\n')
  files.push({ name: 'report.md', data: `${markdown}\n` })
  files.push({ name: 'report.html', data: htmlReport(drawn, comparisons, notes) })
  try {
    await makeDirectory(folder)
    for (const { name, data } of files) await writeFileAtomic(join(folder, name), data, 0o644)
  } catch (error) {
    throw new UserError(`${folder}: cannot write the report: ${errorMessage(error)}`)
  }
  return typeof toPng === 'string' ? toPng : undefined
}

/** Plots of several results lie in one folder. */
function plotName(name: string, index: number, count: number): string {
  return count === 1 ? name : `${index + 1}-${name}`
}

function plotFiles(name: string, svg: string, toPng: ToPng | undefined): OutputFile[] {
  const drawing = { name: `${name}.svg`, data: svg }
  return toPng === undefined ? [drawing] : [drawing, { name: `${name}.png`, data: Buffer.from(toPng(svg)) }]
}
