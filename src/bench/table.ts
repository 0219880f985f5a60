/** Results as Markdown: what a run prints, and what README shows between its marks. */
import type { Figure, Result } from './result.ts'
import { median } from './statistics.ts'

const begin = '<!-- bench:begin -->'
const end = '<!-- bench:end -->'
const digits = 3

export function figureTable(result: Result): string {
  const rows = result.figures.map((figure) => {
    const { name, unit, samples } = figure
    const range = `${short(Math.min(...samples))} – ${short(Math.max(...samples))}`
    return `| ${name} | **${short(median(samples))}** ${unit} | ${range} | ${targetText(figure)} |`
  })
  return ['| | median | min – max | target |', '| --- | --- | --- | --- |', ...rows].join('\n')
}

/** All kept results, each with what it was measured on. */
function benchmarkSection(results: readonly Result[]): string {
  return results
    .map((result) => {
      const { benchmark, machine, date, rounds, method, conditions } = result
      const noisy = conditions.filter((round) => round.noisy).length
      const { cpu, cores, kernel, node, commit } = machine
      const steal = Math.max(0, ...conditions.map(({ stealPercent }) => stealPercent))
      const busy = median(conditions.map(({ busyBeforePercent }) => busyBeforePercent))
      const measured = `${date.slice(0, 10)}, ${cores} × ${cpu}, Linux ${kernel}, Node ${node.slice(1)}, commit ${commit}, ${rounds} rounds, steal up to ${short(steal)} %, others used ${short(busy)} % of the machine before a round${noisy === 0 ? '' : `, ${noisy} noisy rounds`}`
      return `**${benchmark}** (${measured})\n\n${figureTable(result)}\n\nHow: ${method}\n`
    })
    .join('\n')
}

/** README with the section between its marks replaced. */
export function withBenchmarks(readme: string, results: readonly Result[]): string {
  const [from, to] = [readme.indexOf(begin), readme.indexOf(end)]
  if (from === -1 || to < from) throw new Error(`README.md has no ${begin} … ${end}`)
  return `${readme.slice(0, from + begin.length)}\n\n${benchmarkSection(results)}\n${readme.slice(to)}`
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
