import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SaxesParser } from 'saxes'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { analyze } from '../../../../src/benchmark/analyze/analyze.ts'
import { roundMax } from '../../../../src/benchmark/analyze/plots/chart.ts'
import { plotFileName } from '../../../../src/benchmark/analyze/section.ts'
import { goSuite } from '../../../support/go-result.ts'
import { type Simulation, simulatedResult } from '../../../support/simulated-result.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'analyze-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const small: Simulation = {
  seed: 5,
  nodes: 3,
  rounds: 2,
  images: ['10MB-1'],
  mirrors: { none: { create: 40, update: 20 }, 'spegel-ts': { create: 10, update: 5 } },
}

function saved(name: string, content: unknown): string {
  const path = join(folder, name)
  writeFileSync(path, JSON.stringify(content))
  return path
}

/** What is said on the terminal. */
async function analyzed(...paths: string[]): Promise<string> {
  const texts: string[] = []
  await analyze({ paths, outputDir: join(folder, 'out'), write: (text) => void texts.push(text) })
  return texts.join('')
}

function output(name: string): string {
  return readFileSync(join(folder, 'out', name), 'utf8')
}

/** Names of all elements. Throws where it is not well-formed. */
function elements(xml: string): Set<string> {
  const names = new Set<string>()
  const parser = new SaxesParser()
  parser.on('error', (error) => {
    throw error
  })
  parser.on('opentag', ({ name }) => names.add(name))
  parser.write(xml).close()
  return names
}

describe('a report', () => {
  it('is one folder of files that are what they claim to be', async () => {
    const said = await analyzed(saved('result.json', simulatedResult(small)))
    expect(readdirSync(join(folder, 'out')).sort()).toEqual([
      'bytes.png',
      'bytes.svg',
      'pulls-10MB-1.png',
      'pulls-10MB-1.svg',
      'report.html',
      'report.md',
      'waves-10MB-1.png',
      'waves-10MB-1.svg',
    ])
    for (const name of ['bytes', 'pulls-10MB-1', 'waves-10MB-1']) {
      expect(elements(output(`${name}.svg`))).toContain('path')
      const png = readFileSync(join(folder, 'out', `${name}.png`))
      expect(png.subarray(1, 4).toString()).toBe('PNG')
      // Twice the size of the drawing, which is at least 600 wide.
      expect(png.readUInt32BE(16)).toBeGreaterThan(1_200)
    }
    expect(elements(output('report.html'))).toContain('svg')
    expect(output('report.md')).toContain('![Pull times of 10MB-1 per node, by phase and mirror](pulls-10MB-1.svg)')
    expect(said).toContain('Failed pulls: none of 36')
    expect(said.indexOf('Failed pulls')).toBeLessThan(said.indexOf('Mean pull time'))
  })

  it('has no scripts and needs nothing from elsewhere', async () => {
    await analyzed(saved('result.json', simulatedResult(small)))
    const html = output('report.html')
    expect(elements(html)).not.toContain('script')
    expect(html.match(/(?:src|href)="(?!#)[^"]*"/g)).toBeNull()
    expect(html.match(/https?:\/\/(?!www\.w3\.org\/)[^"'\s]*/g)).toBeNull()
  })

  it('shows names as they are, and never as markup', async () => {
    const name = '<script>alert(1)</script>"\' onload=x {a|b} &amp;'
    const result = simulatedResult({
      ...small,
      images: ['10MB-1<img src=x>/../../x'],
      mirrors: { none: { create: 2, update: 2 }, [name]: { create: 1, update: 1 } },
      failures: 0.3,
    })
    const hostile = JSON.parse(
      JSON.stringify(result).replaceAll('node-1', '<b>node</b>').replaceAll('500 I', '<i>500 I'),
    )
    await analyzed(saved('result.json', hostile))
    const html = output('report.html')
    const found = elements(html)
    for (const element of ['script', 'img', 'b', 'i']) expect(found).not.toContain(element)
    expect(html).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
    for (const file of readdirSync(join(folder, 'out'))) {
      if (file.endsWith('.svg')) expect(elements(output(file))).not.toContain('script')
    }
    expect(existsSync(join(folder, 'x.svg'))).toBe(false)
  })

  it('draws the same each time', async () => {
    const path = saved('result.json', simulatedResult(small))
    await analyzed(path)
    const first = readFileSync(join(folder, 'out', 'pulls-10MB-1.png'))
    await analyzed(path)
    expect(readFileSync(join(folder, 'out', 'pulls-10MB-1.png')).equals(first)).toBe(true)
  })

  it("compares the Go tool's files, and says what a single run cannot tell", async () => {
    const paths = [
      saved('none.json', goSuite('none', [1_000, 1_050, 950])),
      saved('spegel.json', goSuite('spegel', [200, 210, 190])),
    ]
    const said = await analyzed(...paths)
    expect(said).toMatch(
      /10MB-1 +update +spegel +1000 +200 +80\.0 \(7\d\.\d – 8\d\.\d\) +1220 → 210 \(82\.8 %\) +66\.7 %/,
    )
    expect(said).toContain('it gives no interval between runs')
    expect(readdirSync(join(folder, 'out'))).not.toContain('bytes.svg')
    elements(output('report.html'))
  })

  it('compares results with the first one', async () => {
    const slower = simulatedResult({
      ...small,
      seed: 6,
      rounds: 5,
      mirrors: { none: { create: 40, update: 20 }, 'spegel-ts': { create: 20, update: 10 } },
    })
    const [a, b] = [saved('a.json', simulatedResult({ ...small, rounds: 5 })), saved('b.json', slower)]
    const said = await analyzed(a, b)
    expect(said).toContain(`spegel-ts in ${b} against spegel-ts in ${a}`)
    expect(said).toMatch(/mean pull ms +10MB-1 +create +slower by \d+\.\d %/)
    expect(readdirSync(join(folder, 'out'))).toContain('2-bytes.svg')
  })

  it('is not written without a folder to write to', async () => {
    const path = saved('result.json', simulatedResult(small))
    await analyze({ paths: [path], write: () => undefined })
    expect(readdirSync(folder)).toEqual(['result.json'])
  })

  it('says which folder cannot be written', async () => {
    const path = saved('result.json', simulatedResult(small))
    await expect(analyze({ paths: [path], outputDir: path, write: () => undefined })).rejects.toThrow(
      `${path}: cannot write the report: EEXIST`,
    )
  })
})

describe('plots', () => {
  it.each<[string, Partial<Simulation>]>([
    ['a single node', { nodes: 1 }],
    ['fifty nodes', { nodes: 50, rounds: 1 }],
    [
      'five mirrors',
      { mirrors: Object.fromEntries(['none', 'a', 'b', 'c', 'd'].map((name) => [name, { create: 1, update: 1 }])) },
    ],
    ['pulls that all failed', { failures: 1 }],
  ])('of %s are drawn', async (_name, change) => {
    await analyzed(saved('result.json', simulatedResult({ ...small, ...change })))
    const svg = output('pulls-10MB-1.svg')
    expect(svg).not.toContain('NaN')
    expect(output('waves-10MB-1.svg')).not.toContain('NaN')
    elements(svg)
  })

  it('end their axes at round numbers', () => {
    expect([0.97, 1.19, 4.95, 0, 71].map(roundMax)).toEqual([1, 1.5, 6, 1, 80])
  })

  it('have file names that stay in the folder', () => {
    expect(plotFileName('pulls-../../etc/<x>')).toBe('pulls-..-..-etc-x-')
    expect(plotFileName('../x')).toBe('-x')
  })
})
