/** README of `benchmark/scenarios/`: the format, from the schema, and what each scene of the folder is about. */
import { type Scene, sceneJsonSchema } from './scene.ts'

/** As much of JSON Schema as zod makes of scenes. */
interface Shape {
  type?: string
  description?: string
  spelled?: string
  default?: unknown
  const?: unknown
  enum?: unknown[]
  properties?: Record<string, Shape>
  required?: string[]
  items?: Shape
  anyOf?: Shape[]
  oneOf?: Shape[]
}

/** `scenes`: by the names of their files. */
export function sceneReference(scenes: ReadonlyMap<string, Scene>): string {
  const list = [...scenes].map(([name, { description }]) => `| \`${name}\` | ${description} |`)
  return `# Scripted scenes

Generated from the scenes and from \`src/benchmark/scene/scene.ts\` (\`npm run docs\`).

A scene says which nodes pull which images when, what the upstream registry does meanwhile, and what breaks. Unknown
keys are refused. Failures are what the scene expects on 8 nodes whose links are some hundred Mbit: more than these are
the mirror's.

| file | what happens |
| --- | --- |
${list.join('\n')}

## Format

Durations are written \`"3s"\`, \`"250ms"\`, \`"1m30s"\`; sizes \`"100MB"\` (of 1,024 × 1,024 bytes), rates \`"10MB/s"\`. Nodes and images are
counted from 1. A set of nodes is \`"all"\`, \`"odd"\`, \`"even"\`, a number or a part (the first 2, the first \`"50%"\`), or a
list of numbers. A moment is a duration since the first pull call of the phase, or a part: when so much of the first
layer is in containerd's content store.

| field | value | unless given | |
| --- | --- | --- | --- |
${rowsOf(sceneJsonSchema() as Shape, '')
  .map((cells) => `| ${cells.join(' | ')} |`)
  .join('\n')}
`
}

function rowsOf(shape: Shape, path: string): string[][] {
  return Object.entries(shape.properties ?? {}).flatMap(([name, field]) => {
    const fieldPath = path === '' ? name : `${path}.${name}`
    const optional = !(shape.required ?? []).includes(name)
    const alternatives = (field.items ?? field).anyOf ?? (field.items ?? field).oneOf ?? []
    const unless = field.default === undefined ? (optional ? '–' : 'needed') : `\`${JSON.stringify(field.default)}\``
    const row = [`\`${fieldPath}\``, spell(field), unless, field.description ?? '']
    // Both phases are the same.
    if (fieldPath === 'phases.update') return [[`\`${fieldPath}\``, 'as `create`', '–', '']]
    if (field.spelled !== undefined) return [row]
    const inner = `${fieldPath}${field.items === undefined ? '' : '[]'}`
    if (field.items?.oneOf !== undefined) return [row, ...behaviourRows(alternatives, inner)]
    return [row, ...[field.items ?? field, ...alternatives].flatMap((part) => rowsOf(part, inner))]
  })
}

/** What all behaviours have is said once, with the first. */
function behaviourRows(behaviours: readonly Shape[], path: string): string[][] {
  const common = new Set<string>()
  return behaviours.flatMap((behaviour) => {
    const [[, name] = ['', {}]] = Object.entries(behaviour.properties ?? {})
    const rows = rowsOf(behaviour, path).slice(1)
    const fresh = rows.filter(([field = '']) => !common.has(field))
    for (const key of ['phase', 'at', 'for']) common.add(`\`${path}.${key}\``)
    return [[`\`${path}.behaviour\``, `\`${JSON.stringify(name.const)}\``, '', behaviour.description ?? ''], ...fresh]
  })
}

function spell(shape: Shape): string {
  if (shape.spelled !== undefined) return code(shape.spelled)
  if (shape.const !== undefined) return code(JSON.stringify(shape.const))
  if (shape.enum !== undefined) return shape.enum.map((value) => code(JSON.stringify(value))).join(', ')
  if (shape.items !== undefined) return `list of ${shape.items.oneOf === undefined ? spell(shape.items) : 'objects'}`
  const alternatives = shape.anyOf ?? []
  if (alternatives.length > 0) return alternatives.map(spell).join(' or ')
  if (shape.type === 'object') return Object.keys(shape.properties ?? {}).length < 3 ? keys(shape) : 'object'
  return shape.type ?? ''
}

function keys({ properties = {} }: Shape): string {
  return code(`{${Object.keys(properties).join(', ')}}`)
}

function code(text: string): string {
  return `\`${text}\``
}
