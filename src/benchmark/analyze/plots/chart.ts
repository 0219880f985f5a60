/** What all plots share: one drawing library, one size of letters, one set of colours. */
import { BarChart, CustomChart, LineChart } from 'echarts/charts'
import { GridComponent, LegendComponent, MarkLineComponent, TitleComponent } from 'echarts/components'
import { type EChartsCoreOption, init, use } from 'echarts/core'
import { SVGRenderer } from 'echarts/renderers'
import { printable } from '../format.ts'

use([
  BarChart,
  CustomChart,
  LineChart,
  GridComponent,
  LegendComponent,
  MarkLineComponent,
  TitleComponent,
  SVGRenderer,
])

export interface Plot {
  /** A file name without its ending. */
  name: string
  /** One sentence: what is shown, for those who cannot see it too. */
  description: string
  width: number
  height: number
  option: EChartsCoreOption
}

export interface Shades {
  dark: string
  light: string
}

export const ink = '#1f2933'
export const softInk = '#52606d'
export const gridLine = '#e1e7ec'
export const failedColour = '#b3001b'
/** No name that needs quotes: the drawing library puts it into an attribute as it is. */
export const fontFamily = 'Inter, Helvetica, Arial, sans-serif'

/** Okabe and Ito's colours, told apart by colour-blind eyes too; the baseline is grey. */
const baselineShades: Shades = { dark: '#5c6670', light: '#c3cad1' }
const mirrorShades: readonly Shades[] = [
  { dark: '#0072b2', light: '#9fcbe6' },
  { dark: '#c75b00', light: '#f2c49b' },
  { dark: '#00795c', light: '#93d3c1' },
  { dark: '#a5558a', light: '#e3bdd5' },
]

export function shadesOf(mirrorIndex: number): Shades {
  if (mirrorIndex === 0) return baselineShades
  return mirrorShades[(mirrorIndex - 1) % mirrorShades.length] ?? baselineShades
}

export function renderSvg({ width, height, option }: Plot): string {
  const chart = init(undefined, undefined, { renderer: 'svg', ssr: true, width, height })
  try {
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      textStyle: { fontFamily, color: ink },
      ...option,
    })
    return chart.renderToSVGString()
  } finally {
    chart.dispose()
  }
}

export function heading(text: string, caption: readonly string[]): object {
  return {
    text: printable(text),
    subtext: caption.map(printable).join('\n'),
    left: 16,
    top: 12,
    itemGap: 6,
    textStyle: { fontSize: 17, fontWeight: 600, color: ink, fontFamily },
    subtextStyle: { fontSize: 12, lineHeight: 16, color: softInk, fontFamily },
  }
}

/** The title of one panel, above its grid. */
export function panelHeading(text: string, left: number, top: number, colour = ink): object {
  return {
    text: printable(text),
    left,
    top,
    padding: 0,
    textStyle: { fontSize: 13, fontWeight: 600, color: colour, fontFamily },
  }
}

export function categoryAxis(names: readonly string[], gridIndex: number): object {
  return {
    type: 'category',
    gridIndex,
    data: names.map(printable),
    axisTick: { show: false },
    axisLine: { lineStyle: { color: softInk } },
    axisLabel: { color: ink, fontSize: 12, interval: 0, hideOverlap: true },
  }
}

export function valueAxis(name: string, gridIndex: number, max?: number): object {
  return {
    type: 'value',
    gridIndex,
    min: 0,
    ...(max === undefined ? {} : { max }),
    name,
    nameLocation: 'middle',
    nameTextStyle: { color: softInk, fontSize: 12 },
    axisLabel: { color: softInk, fontSize: 12 },
    splitLine: { lineStyle: { color: gridLine } },
  }
}

/** The end of an axis: a round number not below the largest value. */
export function roundMax(value: number): number {
  if (!(value > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  const step = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((candidate) => candidate * power >= value * 1.02)
  return Number(((step ?? 12) * power).toPrecision(3))
}

/** As much of a name as has room. */
export function shortened(name: string, characters: number): string {
  return name.length <= characters ? name : `${name.slice(0, characters - 1)}…`
}
