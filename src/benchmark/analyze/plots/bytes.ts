/** Plot: who sent the bytes, upstream or peers, in sizes of the image; one panel per phase. */
import { type Cell, middle, upstreamShare } from '../cells.ts'
import { phaseNames } from '../measurements.ts'
import { median } from '../statistics.ts'
import {
  type Plot,
  categoryAxis,
  fontFamily,
  heading,
  ink,
  panelHeading,
  shadesOf,
  shortened,
  softInk,
  valueAxis,
} from './chart.ts'

const left = 66
const top = 150
const panelHeight = 200
const panelGap = 76

/** Undefined: nobody counted bytes. */
export function bytesPlot(
  images: readonly string[],
  cells: readonly Cell[],
  mirrors: readonly string[],
): Plot | undefined {
  const counted = cells.filter((cell) => !Number.isNaN(middle(cell, upstreamShare)))
  const phases = phaseNames.filter((phase) => counted.some((cell) => cell.phase === phase))
  const shownMirrors = mirrors.filter((mirror) => counted.some((cell) => cell.mirror === mirror))
  if (phases.length === 0) return undefined
  const width = Math.max(620, left + images.length * (40 + 52 * shownMirrors.length) + 60)
  const panelTop = (index: number) => top + index * (panelHeight + panelGap)
  const cellOf = (image: string, phase: string, mirror: string) =>
    counted.find((cell) => cell.image === image && cell.phase === phase && cell.mirror === mirror)
  return {
    name: 'bytes',
    description: 'Bytes from upstream and from peers, in sizes of the image, by image, phase and mirror',
    width,
    height: panelTop(phases.length - 1) + panelHeight + 44,
    option: {
      title: [
        heading('Bytes by source', [
          'Medians over rounds, in sizes of the image. Number above a bar: upstream.',
          'Dashed line: 1 × image, each byte fetched once.',
        ]),
        ...phases.map((phase, index) => panelHeading(phase, left, panelTop(index) - 28)),
      ],
      legend: {
        top: 86,
        left: left - 6,
        itemWidth: 14,
        itemHeight: 10,
        itemGap: 16,
        selectedMode: false,
        data: shownMirrors.flatMap((mirror) => [
          `${shortened(mirror, 24)}: upstream`,
          ...(counted.some((cell) => cell.mirror === mirror && peerShare(cell) > 0)
            ? [`${shortened(mirror, 24)}: peers`]
            : []),
        ]),
        textStyle: { fontSize: 12, color: ink, fontFamily },
      },
      grid: phases.map((_, index) => ({ left, right: 58, top: panelTop(index), height: panelHeight })),
      xAxis: phases.map((_, index) =>
        categoryAxis(
          images.map((image) => shortened(image, 20)),
          index,
        ),
      ),
      yAxis: phases.map((_, index) => ({ ...valueAxis('bytes ÷ image, ×', index), nameGap: 40 })),
      series: phases.flatMap((phase, phaseIndex) =>
        shownMirrors.flatMap((mirror, shownIndex) => {
          const shades = shadesOf(mirrors.indexOf(mirror))
          const upstream = images.map((image) => middle(cellOf(image, phase, mirror), upstreamShare))
          const peers = images.map((image) => peerShare(cellOf(image, phase, mirror)))
          const common = {
            type: 'bar',
            xAxisIndex: phaseIndex,
            yAxisIndex: phaseIndex,
            stack: `${phase} ${mirror}`,
            silent: true,
            barMaxWidth: 44,
            barGap: '20%',
          }
          const shown = shortened(mirror, 24)
          return [
            {
              ...common,
              name: `${shown}: upstream`,
              itemStyle: { color: shades.dark },
              data: upstream.map(orNothing),
              ...(shownIndex === 0 ? { markLine: onceLine } : {}),
            },
            {
              ...common,
              name: `${shown}: peers`,
              itemStyle: { color: shades.light },
              data: peers.map((value, index) => (Number.isNaN(upstream[index]) ? '-' : Math.max(0, value || 0))),
              label: {
                show: true,
                position: 'top',
                color: ink,
                fontSize: 11,
                formatter: ({ dataIndex }: { dataIndex: number }) => label(upstream[dataIndex]),
              },
            },
          ]
        }),
      ),
    },
  }
}

const onceLine = {
  silent: true,
  symbol: 'none',
  lineStyle: { color: ink, type: 'dashed', width: 1.2 },
  label: { formatter: '1 ×', position: 'end', color: softInk, fontSize: 11 },
  data: [{ yAxis: 1 }],
}

function peerShare(cell: Cell | undefined): number {
  return median(
    (cell?.used ?? []).flatMap(({ measured: { peerBytes, imageBytes } }) =>
      peerBytes === undefined || imageBytes === 0 ? [] : [peerBytes / imageBytes],
    ),
  )
}

function orNothing(value: number): number | '-' {
  return Number.isNaN(value) ? '-' : value
}

function label(value: number | undefined): string {
  return value === undefined || Number.isNaN(value) ? '' : value.toFixed(value < 10 ? 2 : 0)
}
