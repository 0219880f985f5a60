/** Enough of PromQL to see whether the series that an expression selects exist in the text of a scrape. */

export interface Series {
  name: string
  labels: Record<string, string>
  value: number
}

interface Matcher {
  label: string
  operator: '=' | '!=' | '=~' | '!~'
  value: string
}

interface Selector {
  name: string
  matchers: Matcher[]
}

const quoted = /"((?:[^"\\]|\\.)*)"/.source

/** All samples of Prometheus' text format. */
export function parseScrape(text: string): Series[] {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [, name = '', labels = '', value = ''] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
      if (name === '') throw new Error(`no sample of Prometheus' text format: ${line}`)
      const pairs = [...labels.matchAll(new RegExp(`(\\w+)=${quoted}`, 'g'))]
      return {
        name,
        labels: Object.fromEntries(pairs.map(([, label, text_]) => [label, text_])),
        value: Number(value),
      }
    })
}

/** The metric names with their label matchers. */
function selectors(expression: string): Selector[] {
  const found: Selector[] = []
  const withoutGroups = expression.replaceAll(/\b(by|without|on|ignoring)\s*\([^)]*\)/g, '')
  // Strings first, so that words in them are not taken for metrics.
  for (const match of withoutGroups.matchAll(/([a-zA-Z_:][\w:]*)(\{[^}]*\})?(\s*\()?/g)) {
    const [, name = '', braces = '', call] = match
    const before = withoutGroups[match.index - 1] ?? ' '
    if (call !== undefined || /[\w$[."]/.test(before) || !name.includes('_')) continue
    const matchers = [...braces.matchAll(new RegExp(`(\\w+)\\s*(=~|!~|!=|=)\\s*${quoted}`, 'g'))]
    found.push({
      name,
      matchers: matchers.map(([, label = '', operator, value = '']) => ({
        label,
        operator: operator as Matcher['operator'],
        value,
      })),
    })
  }
  return found
}

/** The selectors that select nothing, as text. `target` are labels that Prometheus adds. */
export function emptySelectors(
  expression: string,
  series: readonly Series[],
  target: Readonly<Record<string, string>>,
): string[] {
  const all = selectors(expression)
  if (all.length === 0) throw new Error(`no metric in ${expression}`)
  return all
    .filter((selector) => !series.some((one) => isSelected(one, selector, target)))
    .map(({ name, matchers }) => `${name}{${matchers.map((m) => `${m.label}${m.operator}"${m.value}"`).join(',')}}`)
}

function isSelected(series: Series, { name, matchers }: Selector, target: Readonly<Record<string, string>>): boolean {
  return (
    series.name === name &&
    matchers.every(({ label, operator, value }) => {
      const actual = series.labels[label] ?? target[label] ?? ''
      const isMatch = operator.endsWith('~') ? new RegExp(`^(?:${value})$`).test(actual) : actual === value
      return operator.startsWith('!') ? !isMatch : isMatch
    })
  )
}
