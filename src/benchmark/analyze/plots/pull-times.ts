/** Plot: every pull of an image as a point, with boxes; one panel per phase, mirrors beside each other. */
import type { CustomSeriesRenderItem } from 'echarts/types/dist/echarts'
import type { Cell } from '../cells.ts'
import { phaseNames } from '../measurements.ts'
import { spread } from '../statistics.ts'
import {
  type Plot,
  categoryAxis,
  failedColour,
  heading,
  panelHeading,
  roundMax,
  shadesOf,
  shortened,
  valueAxis,
} from './chart.ts'

const height = 470
const top = 122
const bottom = 46
const left = 66
const gap = 62

export function pullTimesPlot(image: string, cells: readonly Cell[], mirrors: readonly string[]): Plot {
  const phases = phaseNames.filter((phase) => cells.some((cell) => cell.phase === phase))
  const panelWidth = Math.max(320, 130 * mirrors.length)
  const width = left + phases.length * panelWidth + (phases.length - 1) * gap + 24
  const pulls = cells.flatMap(({ used }) => used.flatMap(({ measured }) => measured.pulls))
  const rounds = Math.max(...cells.map(({ used }) => used.length))
  const failed = pulls.filter(({ error }) => error !== undefined).length
  const caption = [
    `One point per node pull, ${rounds === 1 ? 'one round' : `${rounds} rounds`}. Box: quartiles and median; whiskers: fastest and slowest pull.`,
    `${phases.length > 1 ? 'Each phase has its own scale. ' : ''}${failed === 0 ? '' : `× ${failed} failed ${failed === 1 ? 'pull' : 'pulls'}, in no box.`}`,
  ]
  const panelLeft = (index: number) => left + index * (panelWidth + gap)
  return {
    name: `pulls-${image}`,
    description: `Pull times of ${image} per node, by phase and mirror`,
    width,
    height,
    option: {
      title: [
        heading(`Pull times, ${image}`, caption),
        ...phases.map((phase, index) => panelHeading(phase, panelLeft(index), top - 26)),
      ],
      grid: phases.map((_, index) => ({ left: panelLeft(index), width: panelWidth, top, bottom })),
      xAxis: phases.map((_, index) =>
        categoryAxis(
          mirrors.map((mirror) => shortened(mirror, 15)),
          index,
        ),
      ),
      yAxis: phases.map((phase, index) => ({
        ...valueAxis(index === 0 ? 'pull time, s' : '', index, longestSeconds(cells, phase)),
        nameGap: 44,
      })),
      series: phases.map((phase, index) => ({
        type: 'custom',
        xAxisIndex: index,
        yAxisIndex: index,
        silent: true,
        data: mirrors.map((_, mirrorIndex) => [mirrorIndex, 0]),
        renderItem: box(
          mirrors.map((mirror) => cells.find((cell) => cell.phase === phase && cell.mirror === mirror)),
        ),
      })),
    },
  }
}

function longestSeconds(cells: readonly Cell[], phase: string): number {
  const runs = cells.filter((cell) => cell.phase === phase).flatMap(({ used }) => used)
  return roundMax(Math.max(...runs.flatMap(({ measured }) => measured.pulls.map(({ duration }) => duration / 1e9))))
}

function box(cellOfMirror: readonly (Cell | undefined)[]): CustomSeriesRenderItem {
  return (params, api) => {
    const index = params.dataIndex
    const pulls = cellOfMirror[index]?.used.flatMap(({ measured }) => measured.pulls) ?? []
    const place = (seconds: number): [number, number] => api.coord([index, seconds]) as [number, number]
    const [middle] = place(0)
    const { dark, light } = shadesOf(index)
    const points = pulls.map(({ duration, error }, pullIndex) => {
      // Spread by the golden ratio: even, and the same each time.
      const jitter = (((pullIndex + 1) * 0.618_034) % 1) - 0.5
      const x = middle + 36 + 40 * jitter
      const [, y] = place(duration / 1e9)
      return error === undefined
        ? { type: 'circle' as const, shape: { cx: x, cy: y, r: 3 }, style: { fill: dark, opacity: 0.55 } }
        : cross(x, y)
    })
    const good = pulls.filter(({ error }) => error === undefined).map(({ duration }) => duration / 1e9)
    return { type: 'group', children: [...(good.length === 0 ? [] : boxShapes(good)), ...points] }

    function boxShapes(seconds: readonly number[]) {
      const { min, lowerQuartile, median, upperQuartile, max } = spread(seconds)
      const y = (value: number) => place(value)[1]
      const [x, half] = [middle - 26, 24]
      const line = (x1: number, y1: number, x2: number, y2: number, lineWidth: number) => ({
        type: 'line' as const,
        shape: { x1, y1, x2, y2 },
        style: { stroke: dark, lineWidth },
      })
      return [
        line(x, y(max), x, y(upperQuartile), 1.3),
        line(x, y(lowerQuartile), x, y(min), 1.3),
        line(x - 9, y(max), x + 9, y(max), 1.3),
        line(x - 9, y(min), x + 9, y(min), 1.3),
        {
          type: 'rect' as const,
          shape: { x: x - half, y: y(upperQuartile), width: 2 * half, height: y(lowerQuartile) - y(upperQuartile) },
          style: { fill: light, stroke: dark, lineWidth: 1.3 },
        },
        line(x - half, y(median), x + half, y(median), 2.4),
      ]
    }
  }
}

function cross(x: number, y: number) {
  return {
    type: 'path' as const,
    shape: { pathData: `M${x - 4} ${y - 4}L${x + 4} ${y + 4}M${x - 4} ${y + 4}L${x + 4} ${y - 4}` },
    style: { stroke: failedColour, fill: 'none', lineWidth: 2 },
  }
}
