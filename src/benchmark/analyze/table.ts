/** A table, and its three spellings: for a terminal, as Markdown, as HTML. */
import { printable } from './format.ts'
import { escapeXml } from './escape.ts'

export interface Table {
  title: string
  head: readonly string[]
  /** So many columns hold words, the others numbers. */
  wordColumns: number
  rows: readonly (readonly string[])[]
  notes: readonly string[]
}

export function terminalTable({ title, head, wordColumns, rows, notes }: Table): string {
  const shown = [head, ...rows].map((row) => row.map(printable))
  const widths = head.map((_, column) => Math.max(...shown.map((row) => row[column]?.length ?? 0)))
  const lines = shown.map((row) =>
    row
      .map((text, column) =>
        column < wordColumns ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  )
  const [headLine, ...rowLines] = lines
  const rule = widths.map((width) => '─'.repeat(width)).join('  ')
  return [title, '', headLine, rule, ...rowLines, ...notes.map((note) => `  ${printable(note)}`)].join('\n')
}

export function markdownTable({ title, head, wordColumns, rows, notes }: Table): string {
  const row = (texts: readonly string[]) => `| ${texts.map(markdownText).join(' | ')} |`
  const rule = `| ${head.map((_, column) => (column < wordColumns ? '---' : '---:')).join(' | ')} |`
  const below = notes.map((note) => `- ${markdownText(note)}`)
  return [`## ${markdownText(title)}`, '', row(head), rule, ...rows.map(row), '', ...below].join('\n').trimEnd()
}

/** Without the title. */
export function htmlTable({ head, wordColumns, rows, notes }: Table): string {
  const cellClass = (column: number) => (column < wordColumns ? '' : ' class="number"')
  const headCells = head.map((text, column) => `<th scope="col"${cellClass(column)}>${escapeXml(text)}</th>`)
  const rowLines = rows.map(
    (row) => `<tr>${row.map((text, column) => `<td${cellClass(column)}>${escapeXml(text)}</td>`).join('')}</tr>`,
  )
  const below = notes.map((note) => `<li>${escapeXml(note)}</li>`)
  return `<div class="wide"><table><thead><tr>${headCells.join('')}</tr></thead>
<tbody>
${rowLines.join('\n')}
</tbody></table></div>
${below.length === 0 ? '' : `<ul class="notes">${below.join('\n')}</ul>`}`
}

export function markdownText(text: string): string {
  return printable(text).replaceAll(/[\\`*_[\]<>|&]/g, (character) => `\\${character}`)
}
