/** Plot: when each node pulled, in the median round; one panel per mirror and phase, on one scale of time per phase. */
import type { CustomSeriesRenderItem } from 'echarts/types/dist/echarts'
import type { Pull } from '../../result/schema.ts'
import { type Cell, medianRun } from '../cells.ts'
import { phaseNames } from '../measurements.ts'
import {
  type Plot,
  categoryAxis,
  failedColour,
  heading,
  panelHeading,
  roundMax,
  shadesOf,
  shortened,
  softInk,
  valueAxis,
} from './chart.ts'

const left = 84
const columnGap = 42
const rowGap = 84
const bottom = 50

export function wavesPlot(image: string, cells: readonly Cell[], mirrors: readonly string[]): Plot {
  const phases = phaseNames.filter((phase) => cells.some((cell) => cell.phase === phase))
  const runs = cells.flatMap((cell) => {
    const run = medianRun(cell)
    return run === undefined ? [] : [run]
  })
  const nodes = nodeNames(runs.flatMap(({ measured }) => measured.pulls))
  const pulls = runs.flatMap(({ measured }) => measured.pulls)
  const hasUnpack = pulls.some(({ unpack }) => unpack !== undefined)
  const failed = pulls.some(({ error }) => error !== undefined)
  const barHeight = nodes.length > 30 ? 9 : nodes.length > 12 ? 13 : 18
  const panelHeight = Math.max(60, nodes.length * barHeight)
  const panelWidth = mirrors.length > 2 ? 300 : 400
  const captionLines = [
    'The round in the middle by mean pull time. One bar per node pull, from its start to its end.',
    [hasUnpack ? 'Dark: network; light: unpacking after the last blob came.' : '', failed ? 'Red: failed.' : '']
      .filter(Boolean)
      .join(' '),
  ].filter(Boolean)
  const top = 84 + 16 * captionLines.length
  const width = left + mirrors.length * panelWidth + (mirrors.length - 1) * columnGap + 24
  const height = top + phases.length * panelHeight + (phases.length - 1) * rowGap + bottom
  const panels = phases.flatMap((phase, row) =>
    mirrors.map((mirror, column) => ({
      phase,
      mirror,
      column,
      left: left + column * (panelWidth + columnGap),
      top: top + row * (panelHeight + rowGap),
      pulls: runs.find((run) => run.phase === phase && run.mirror === mirror)?.measured.pulls ?? [],
      end: roundMax(
        Math.max(
          ...runs
            .filter((run) => run.phase === phase)
            .flatMap(({ measured }) => measured.pulls.map((pull) => (pull.started + pull.duration) / 1e9)),
        ),
      ),
    })),
  )
  return {
    name: `waves-${image}`,
    description: `When each node pulled ${image}, by phase and mirror`,
    width,
    height,
    option: {
      title: [
        heading(`Waves over time, ${image}`, captionLines),
        ...panels.map((panel) =>
          panelHeading(
            `${panel.phase}: ${shortened(panel.mirror, 26)}`,
            panel.left,
            panel.top - 22,
            shadesOf(panel.column).dark,
          ),
        ),
      ],
      grid: panels.map((panel) => ({ left: panel.left, top: panel.top, width: panelWidth, height: panelHeight })),
      xAxis: panels.map((panel, index) => ({
        ...valueAxis('time since the first pull call, s', index, panel.end),
        nameGap: 26,
      })),
      yAxis: panels.map((panel, index) => ({
        ...categoryAxis(
          nodes.map((node) => shortened(node, 11)),
          index,
        ),
        inverse: true,
        axisLabel: { show: panel.column === 0, color: softInk, fontSize: 11, interval: 'auto' },
      })),
      series: panels.map((panel, index) => ({
        type: 'custom',
        xAxisIndex: index,
        yAxisIndex: index,
        silent: true,
        data: panel.pulls.map(({ node, started }) => [started / 1e9, nodes.indexOf(node)]),
        renderItem: bar(panel.pulls, nodes, panel.column, barHeight - (barHeight > 12 ? 5 : 3)),
      })),
    },
  }
}

function bar(
  pulls: readonly Pull[],
  nodes: readonly string[],
  mirrorIndex: number,
  thickness: number,
): CustomSeriesRenderItem {
  return (params, api) => {
    const pull = pulls[params.dataIndex]
    if (pull === undefined) return { type: 'group', children: [] }
    const { dark, light } = shadesOf(mirrorIndex)
    const at = (ns: number) => api.coord([ns / 1e9, nodes.indexOf(pull.node)]) as [number, number]
    const [start, y] = at(pull.started)
    const [end] = at(pull.started + pull.duration)
    const [networkEnd] = at(pull.started + (pull.network ?? pull.duration))
    const part = (from: number, to: number, fill: string) => ({
      type: 'rect' as const,
      shape: { x: from, y: y - thickness / 2, width: Math.max(1, to - from), height: thickness },
      style: { fill },
    })
    if (pull.error !== undefined) return { type: 'group', children: [part(start, end, failedColour)] }
    return {
      type: 'group',
      children: [part(start, networkEnd, dark), ...(end > networkEnd ? [part(networkEnd, end, light)] : [])],
    }
  }
}

/** `node-2` before `node-10`. */
function nodeNames(pulls: readonly Pull[]): string[] {
  return [...new Set(pulls.map(({ node }) => node))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
}
