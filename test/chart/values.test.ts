import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { chartValues } from '../../docs/chart.ts'
import { commands } from '../../src/cli/commands.ts'
import { parseCommandLine } from '../../src/cli/option.ts'
import { Chart, type Rendered, type Values, chartFolder, podOf } from '../support/chart.ts'
import { everyValue, everythingOn, set } from './every-value.ts'

const values = chartValues(readFileSync(join(chartFolder, 'values.yaml'), 'utf8'))
/** What Kubernetes puts for $(NAME). */
const environment: Record<string, string> = { NODE_IP: '10.0.0.1', ADVERTISE_ADDR: '10.88.0.5,fd00::5' }

describe('a value', () => {
  let chart: Chart
  const contexts = new Map<string, Promise<Rendered>>()

  beforeAll(async () => {
    chart = await Chart.open()
  })

  /** Rendered once for each. */
  const before = (where: Values) => {
    const key = JSON.stringify(where)
    const rendered = contexts.get(key) ?? chart.render({ ...everythingOn, ...where })
    contexts.set(key, rendered)
    return rendered
  }

  it('is in the tests, each of them', () => {
    expect(Object.keys(everyValue).sort()).toEqual(values.map(({ path }) => path).sort())
  })

  it.each(Object.entries(everyValue))(
    '%s changes what is installed, to what Kubernetes and the daemon take',
    async (path, { to, where = {} }) => {
      const changed = await chart.render(set({ ...everythingOn, ...where }, path, to))
      expect(changed.text).not.toBe((await before(where)).text)
      expect(await chart.faults(changed)).toEqual([])
      expect(parsedCommands(changed)).toContain('registry')
    },
  )

  it.each(values.map(({ path, default: value }) => [path, value] as const))(
    '%s is refused in a wrong type, by its name',
    async (path, value) => {
      const wrong = typeof value === 'object' && value !== null ? 'text' : { a: 'map' }
      const refusal = await chart.refusal(set({}, path, wrong))
      expect(refusal).toMatch(
        new RegExp(`'/${path.replaceAll('.', '/')}': got (string|object), want|${enumOf(path)}`),
      )
    },
  )

  it.each(['', ...groups(values.map(({ path }) => path))])('that is not known in "%s" is refused', async (group) => {
    const refusal = await chart.refusal(set({}, group === '' ? 'unknown' : `${group}.unknown`, 1))
    expect(refusal).toContain(`'/${group.replaceAll('.', '/')}'`.replace("'/'", "''"))
    expect(refusal).toContain("additional properties 'unknown' not allowed")
  })

  it.each<[string, Values, string]>([
    ['a log level of another daemon', { spegel: { logLevel: 'TRACE' } }, "'DEBUG', 'INFO', 'WARN', 'ERROR'"],
    ['a registry without scheme', { spegel: { mirroredRegistries: ['docker.io'] } }, "'docker.io' does not match"],
    ['a duration without unit', { spegel: { mirrorResolveTimeout: '20' } }, "'20' does not match pattern"],
    ['a relative path', { spegel: { containerdSock: 'containerd.sock' } }, "'containerd.sock' does not match"],
    ['a broken expression', { spegel: { registryFilters: ['('] } }, 'missing closing )'],
    ['a port out of range', { service: { registry: { port: 70_000 } } }, 'maximum: got 70,000, want 65,535'],
    ['a value of old versions of Spegel', { spegel: { appendMirrors: true } }, "'appendMirrors' not allowed"],
    ['null where there must be something', { spegel: { bootstrap: null } }, "missing property 'bootstrap'"],
  ])('is refused: %s', async (_name, wrong, words) => {
    expect(await chart.refusal(wrong)).toContain(words)
  })
})

/** Names of the commands of all containers, each with a command line that it takes. Throws for one that it does not. */
function parsedCommands(rendered: Rendered): string[] {
  const pods = rendered.manifests.filter(({ kind }) => ['DaemonSet', 'Job', 'Pod'].includes(kind)).map(podOf)
  const containers = pods.flatMap(({ initContainers = [], containers: main }) => [...initContainers, ...main])
  return containers
    .filter(({ args }) => args !== undefined)
    .map(({ args: [name = '', ...args] }) => {
      const command = commands.find((candidate) => candidate.name === name)
      if (command === undefined) throw new Error(`there is no command ${name}`)
      parseCommandLine(command, command.table, args.map(expand), environment)
      return name
    })
}

/** As the kubelet does: $$ is a dollar, $(NAME) the environment. */
function expand(argument: string): string {
  return argument.replaceAll(/\$\$|\$\((\w+)\)/g, (text, name: string | undefined) =>
    name === undefined ? '$' : (environment[name] ?? text),
  )
}

/** Every path that has values below it. */
function groups(paths: readonly string[]): string[] {
  const parents = paths.flatMap((path) => {
    const parts = path.split('.').slice(0, -1)
    return parts.map((_part, index) => parts.slice(0, index + 1).join('.'))
  })
  return [...new Set(parents)]
}

/** Values of few words have another error. */
function enumOf(path: string): string {
  return `'/${path.replaceAll('.', '/')}': value must be one of`
}
