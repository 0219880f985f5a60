/** Results as Markdown: what a run prints, what README shows between its marks, and all of it in benchmark/parts.md. */
import type { Figure, Result } from './result.ts'
import { median } from './statistics.ts'

const begin = '<!-- bench:begin -->'
const end = '<!-- bench:end -->'
const digits = 3

export function figureTable({ figures }: Result): string {
  return [tableHead, ...figures.map(row)].join('\n')
}

/** `benchmark/parts.md`: every figure, and how it was measured. */
export function benchmarkReference(results: readonly Result[]): string {
  return `# The parts, measured

Generated from \`benchmark/results/\` by \`npm run docs\`. Each file there has every sample; \`npm run bench -- <name>\`
writes it anew. What is compared takes turns in one run; a round in which the host took CPU away is repeated.

${benchmarkSections(results)}`
}

/** All kept results, each with what it was measured on. */
function benchmarkSections(results: readonly Result[]): string {
  return results
    .map((result) => {
      const { benchmark, machine, date, rounds, method, conditions } = result
      const noisy = conditions.filter((round) => round.noisy).length
      const { cpu, cores, kernel, node, commit } = machine
      const steal = Math.max(0, ...conditions.map(({ stealPercent }) => stealPercent))
      const busy = median(conditions.map(({ busyBeforePercent }) => busyBeforePercent))
      const measured = `${date.slice(0, 10)}, ${cores} × ${cpu}, Linux ${kernel}, Node ${node.slice(1)}, commit ${commit}, ${rounds} rounds, steal up to ${short(steal)} %, others used ${short(busy)} % of the machine before a round${noisy === 0 ? '' : `, ${noisy} noisy rounds`}`
      return `## ${benchmark}\n\n${measured}\n\n${figureTable(result)}\n\nHow: ${method}\n`
    })
    .join('\n')
}

/** README with the table between its marks replaced: only what has a target. */
export function withBenchmarks(readme: string, results: readonly Result[]): string {
  const [from, to] = [readme.indexOf(begin), readme.indexOf(end)]
  if (from === -1 || to < from) throw new Error(`README.md has no ${begin} … ${end}`)
  const rows = results.flatMap(({ benchmark, figures }) =>
    figures
      .filter(({ target }) => target !== undefined)
      .map((figure) => row({ ...figure, name: `${benchmark}: ${figure.name}` })),
  )
  return `${readme.slice(0, from + begin.length)}\n\n${[tableHead, ...rows].join('\n')}\n\n${readme.slice(to)}`
}

const tableHead = '| | median | min – max | target |\n| --- | --- | --- | --- |'

function row(figure: Figure): string {
  const { name, unit, samples } = figure
  const range = `${short(Math.min(...samples))} – ${short(Math.max(...samples))}`
  return `| ${name} | **${short(median(samples))}** ${unit} | ${range} | ${targetText(figure)} |`
}

function targetText({ target, samples }: Figure): string {
  if (target === undefined) return ''
  const middle = median(samples)
  const [text, met] =
    'atMost' in target
      ? [`≤ ${target.atMost}`, middle <= target.atMost]
      : [`≥ ${target.atLeast}`, middle >= target.atLeast]
  return met ? text : `${text}: missed`
}

function short(value: number): string {
  return Number.isFinite(value)
    ? String(Number(value.toPrecision(Math.max(digits, Math.floor(Math.log10(Math.abs(value) + 1)) + 1))))
    : '–'
}
