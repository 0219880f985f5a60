/** Command lines of programs written in Go. */
export function flags(values: Readonly<Record<string, string | boolean>>): string[] {
  return Object.entries(values).map(([name, value]) => `--${name}=${value}`)
}
