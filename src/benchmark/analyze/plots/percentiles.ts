/** Plot: latency by percentile, both on logarithmic scales, a line for each path; one panel per measurement. */
import type { Latencies } from '../../network/latencies.ts'
import { samplesAboveMin } from '../../network/latencies.ts'
import type { NetworkResult } from '../../result/network-schema.ts'
import { bytesText } from '../format.ts'
import { cellsOf, latenciesOf } from '../network/measurements.ts'
import { type Plot, fontFamily, gridLine, heading, ink, panelHeading, shadesOf, shortened, softInk } from './chart.ts'

interface Panel {
  title: string
  lines: readonly { path: string; points: readonly [number, number][] }[]
}

const top = 150
const left = 76
const panelWidth = 330
const panelHeight = 230
const [columnGap, rowGap] = [62, 92]
const columnsMax = 3
/** Points of a line between one nine and the next. */
const pointsPerDecade = 20

export function percentilePlots(result: NetworkResult): Plot[] {
  const pingPong = cellsOf(result, 'ping-pong')
  const http = cellsOf(result, 'http-rate')
  const bodies = [...new Set(http.map(({ turns: [first] }) => first.bodyBytes))]
  const plots = [
    percentilePlot('percentiles-ping-pong', 'Latency without load, there and back', result, panelsOf(pingPong)),
    ...bodies.map((body) => {
      const cells = http.filter(({ turns: [first] }) => first.bodyBytes === body)
      const title = `HTTP at a constant rate, bodies of ${bytesText(body)}`
      return percentilePlot(`percentiles-http-${body}`, title, result, panelsOf(cells))
    }),
  ]
  return plots.filter((plot) => plot !== undefined)
}

function panelsOf(cells: readonly (Parameters<typeof latenciesOf>[0] & { name: string; path: string })[]): Panel[] {
  return [...new Set(cells.map(({ name }) => name))].map((title) => ({
    title,
    lines: cells
      .filter(({ name }) => name === title)
      .map((cell) => ({ path: cell.path, points: pointsOf(latenciesOf(cell)) })),
  }))
}

/** x: of how many samples one lies above, so that each nine takes the same room. y: µs. */
function pointsOf(latencies: Latencies): [number, number][] {
  const points: [number, number][] = []
  for (let index = 0; ; index++) {
    const oneOf = 10 ** (index / pointsPerDecade)
    const value = latencies.percentileNs(100 * (1 - 1 / oneOf))
    if (value === undefined) return points
    points.push([oneOf, value / 1000])
  }
}

/** Undefined: nothing was measured. */
function percentilePlot(
  name: string,
  title: string,
  { paths }: NetworkResult,
  panels: readonly Panel[],
): Plot | undefined {
  const points = panels.flatMap(({ lines }) => lines.flatMap((line) => line.points))
  if (points.length === 0) return undefined
  const drawn = paths.filter((path) => panels.some(({ lines }) => lines.some((line) => line.path === path.name)))
  const columns = Math.min(columnsMax, panels.length)
  const rows = Math.ceil(panels.length / columns)
  const place = (index: number) => ({
    left: left + (index % columns) * (panelWidth + columnGap),
    top: top + Math.floor(index / columns) * (panelHeight + rowGap),
  })
  const values = points.map(([, value]) => value)
  const [lowest, highest] = [
    10 ** Math.floor(Math.log10(Math.min(...values))),
    10 ** Math.ceil(Math.log10(Math.max(...values))),
  ]
  const farthest = 10 ** Math.ceil(Math.log10(Math.max(10, ...points.map(([oneOf]) => oneOf))))
  return {
    name,
    description: `${title}: latency by percentile for ${drawn.map((path) => path.name).join(', ')}`,
    width: Math.max(620, left + columns * panelWidth + (columns - 1) * columnGap + 30),
    height: top + rows * panelHeight + (rows - 1) * rowGap + 60,
    option: {
      title: [
        heading(title, [
          'All rounds together. Both scales are logarithmic: each nine takes the same room.',
          `A line ends where fewer than ${samplesAboveMin} samples lie above.`,
        ]),
        ...panels.map((panel, index) => panelHeading(panel.title, place(index).left, place(index).top - 26)),
      ],
      legend: {
        top: 86,
        left: left - 6,
        icon: 'roundRect',
        itemWidth: 18,
        itemHeight: 4,
        selectedMode: false,
        data: drawn.map((path) => shortened(path.name, 24)),
        textStyle: { fontSize: 12, color: ink, fontFamily },
      },
      grid: panels.map((_, index) => ({ ...place(index), width: panelWidth, height: panelHeight })),
      xAxis: panels.map((_, index) => ({
        ...logAxis('percentile', index, 1, farthest),
        nameGap: 28,
        axisLabel: { color: softInk, fontSize: 12, formatter: percentText },
      })),
      yAxis: panels.map((_, index) => ({
        ...logAxis(index % columns === 0 ? 'latency' : '', index, lowest, highest),
        nameGap: 52,
        axisLabel: { color: softInk, fontSize: 12, formatter: timeText },
      })),
      series: panels.flatMap(({ lines }, panelIndex) =>
        lines.map((line) => {
          const { dark } = shadesOf(paths.findIndex((path) => path.name === line.path))
          return {
            type: 'line',
            name: shortened(line.path, 24),
            xAxisIndex: panelIndex,
            yAxisIndex: panelIndex,
            silent: true,
            showSymbol: false,
            lineStyle: { color: dark, width: 2 },
            itemStyle: { color: dark },
            data: line.points,
          }
        }),
      ),
    },
  }
}

function logAxis(name: string, gridIndex: number, min: number, max: number): object {
  return {
    type: 'log',
    gridIndex,
    min,
    max,
    name,
    nameLocation: 'middle',
    nameTextStyle: { color: softInk, fontSize: 12 },
    axisLine: { show: true, lineStyle: { color: softInk } },
    splitLine: { lineStyle: { color: gridLine } },
  }
}

/** 1 is 0 %, 10 is 90 %, 1,000 is 99.9 %. */
function percentText(oneOf: number): string {
  const nines = Math.round(Math.log10(oneOf))
  return `${(100 * (1 - 10 ** -nines)).toFixed(Math.max(0, nines - 2))} %`
}

function timeText(microseconds: number): string {
  if (microseconds >= 1e6) return `${microseconds / 1e6} s`
  return microseconds >= 1e3 ? `${microseconds / 1e3} ms` : `${microseconds} µs`
}
