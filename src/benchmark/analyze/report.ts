/** One HTML file: inline style and drawings, no scripts, nothing from elsewhere. It is well-formed XML as well. */
import { escapeXml } from './escape.ts'
import type { Section } from './section.ts'
import { type Table, htmlTable } from './table.ts'

export interface Drawing {
  svg: string
  description: string
}

/** Nothing that could leave the file, should a name ever get past the escaping. */
const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

const style = `
:root { color-scheme: light dark; --ink: #1f2933; --soft: #52606d; --page: #f7f9fa; --card: #ffffff; --line: #d7dee4;
  --good: #0b6e4f; --bad: #b3001b; --badPage: #fdecee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --soft: #a5b1bd; --page: #14191e; --card: #1d242b; --line: #36414c;
    --good: #58c99f; --bad: #ff8a96; --badPage: #3a1a20; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 44px 0 10px; overflow-wrap: anywhere; }
h3 { font-size: 17px; margin: 32px 0 8px; overflow-wrap: anywhere; }
.failures { margin: 16px 0; padding: 10px 16px; border-left: 5px solid var(--good); background: var(--card); }
.failures.some { border-color: var(--bad); background: var(--badPage); }
.failures strong { color: var(--good); }
.failures.some strong { color: var(--bad); }
.failures li, dd { overflow-wrap: anywhere; }
.headlines { font-size: 17px; padding-left: 22px; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 5px 11px; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.notes { color: var(--soft); font-size: 13px; padding-left: 20px; }
figure { margin: 18px 0; overflow-x: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px; }
figure svg { display: block; margin: 0 auto; }
details { margin: 16px 0; }
summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; font-size: 14px; }
dt { color: var(--soft); }
dd { margin: 0; }
@media (max-width: 640px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } }
`

export function htmlReport(
  sections: readonly (Section & { drawings: readonly Drawing[] })[],
  comparisons: readonly Table[],
  notes: readonly string[],
): string {
  const compared =
    comparisons.length === 0 ? '' : `<h2>The results compared</h2>\n${comparisons.map(tableBlock).join('\n')}`
  return `<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta http-equiv="Content-Security-Policy" content="${escapeXml(policy)}" />
<title>Benchmark: ${escapeXml(sections.map(({ name }) => name).join(', '))}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>Benchmark</h1>
${list(notes, 'notes')}
${sections.map((section) => sectionBlock(section, sections.length > 1)).join('\n')}
${compared}
</main>
</body>
</html>
`
}

function sectionBlock(
  { name, path, summary, tables, everyRound, setUp, drawings }: Section & { drawings: readonly Drawing[] },
  hasOthers: boolean,
): string {
  const figures = drawings.map(
    ({ svg, description }) =>
      `<figure role="img" aria-label="${escapeXml(description)}">${svg.replace(/^<\?xml[^>]*\?>\s*/, '')}</figure>`,
  )
  const facts = setUp.map(({ what, value }) => `<dt>${escapeXml(what)}</dt><dd>${escapeXml(value)}</dd>`)
  return `<section>
<h2>${escapeXml(hasOthers ? `${name} (${path})` : name)}</h2>
${failureBlock(summary.failures)}
${list(summary.headlines, 'headlines')}
${list(summary.rounds, 'notes')}
${tables.map(tableBlock).join('\n')}
<h3>Plots</h3>
${figures.join('\n')}
<details><summary>${escapeXml(everyRound.title)}</summary>
${htmlTable(everyRound)}
</details>
<h3>How it was measured</h3>
<dl>
${facts.join('\n')}
</dl>
</section>`
}

function failureBlock([first = '', ...each]: readonly string[]): string {
  const details =
    each.length === 0 ? '' : `<details><summary>Each of them</summary>\n${list(each, 'notes')}\n</details>`
  return `<div class="failures${each.length === 0 ? '' : ' some'}"><strong>${escapeXml(first)}</strong>${details}</div>`
}

function tableBlock(table: Table): string {
  return `<h3>${escapeXml(table.title)}</h3>\n${htmlTable(table)}`
}

function list(lines: readonly string[], className: string): string {
  if (lines.length === 0) return ''
  return `<ul class="${className}">${lines.map((line) => `<li>${escapeXml(line)}</li>`).join('\n')}</ul>`
}
