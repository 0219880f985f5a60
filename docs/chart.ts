/** The generated parts of the chart's README: its values, from values.yaml, and its presets, from their first lines. */
import { readFileSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type Node, type YAMLMap, isMap, isScalar, parseDocument } from 'yaml'

export interface ChartValue {
  /** `service.registry.port` */
  path: string
  default: unknown
  help: string
}

export interface Preset {
  /** `k3s` */
  name: string
  distribution: string
  /** Whether somebody ran it, or it was only read about. */
  state: string
  where: string
  /** What has to be set up on nodes. */
  node: string
}

/** All values of a values.yaml. Throws when one has no comment above it. */
export function chartValues(text: string): ChartValue[] {
  const document = parseDocument(text)
  const [error] = document.errors
  if (error !== undefined) throw error
  return valuesBelow(document.contents as YAMLMap<Node, Node>, '')
}

/** A map without a comment of its own is a group of values; with one it is a value. */
function valuesBelow(map: YAMLMap<Node, Node>, prefix: string): ChartValue[] {
  return map.items.flatMap(({ key, value }, index) => {
    if (!isScalar(key) || value === null) throw new Error(`values.yaml: ${prefix}: not a map`)
    const path = `${prefix}${String(key.value)}`
    // The comment above the first key of a map belongs to the map, in the eyes of the parser.
    const comment = key.commentBefore ?? (index === 0 ? map.commentBefore : undefined)
    if (comment === undefined || comment === null) {
      if (isMap<Node, Node>(value)) return valuesBelow(value, `${path}.`)
      throw new Error(`values.yaml: ${path} has no comment above it`)
    }
    return [{ path, default: value.toJSON() as unknown, help: comment.replaceAll(/\s*\n\s*/g, ' ').trim() }]
  })
}

/** Throws when a preset does not say what it is. */
export function chartPresets(folder: string): Preset[] {
  return readdirSync(folder)
    .sort()
    .map((file) => {
      const text = readFileSync(join(folder, file), 'utf8')
      const field = (name: string) => {
        const value = new RegExp(`^# ${name}: (.*)$`, 'm').exec(text)?.[1]
        if (value === undefined) throw new Error(`presets/${file} has no line "# ${name}: …"`)
        return value
      }
      return {
        name: basename(file, '.yaml'),
        distribution: field('Distribution'),
        state: field('State'),
        where: field('Where'),
        node: field('Node'),
      }
    })
}

/** The chart's README with its tables replaced. */
export function chartReadme(readme: string, values: readonly ChartValue[], presets: readonly Preset[]): string {
  const presetRows = presets.map(({ name, ...preset }) =>
    row([
      preset.distribution,
      `[\`presets/${name}.yaml\`](presets/${name}.yaml)`,
      preset.node,
      preset.state,
      preset.where,
    ]),
  )
  const valueRows = values.map(({ path, default: value, help }) =>
    row([`\`${path}\``, `\`${JSON.stringify(value)}\``, help]),
  )
  const withPresets = between(readme, 'presets', [
    row(['distribution', 'values', 'what a node needs beside', 'state', 'where that is from']),
    row(['---', '---', '---', '---', '---']),
    ...presetRows,
  ])
  return between(withPresets, 'values', [
    row(['value', 'default', 'meaning']),
    row(['---', '---', '---']),
    ...valueRows,
  ])
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function between(text: string, name: string, lines: readonly string[]): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from === -1 || to < from) throw new Error(`charts/spegel-ts/README.md has no ${begin} … ${end}`)
  return `${text.slice(0, from + begin.length)}\n\n${lines.join('\n')}\n\n${text.slice(to)}`
}
