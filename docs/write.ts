/** Writes the generated reference pages beside this file, below benchmark/ and charts/, and what the benchmark measured. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readResults } from '../src/bench/result.ts'
import { benchmarkReference, withBenchmarks } from '../src/bench/table.ts'
import { networkResultReference } from '../src/benchmark/result/network-schema.ts'
import { resultReference } from '../src/benchmark/result/schema.ts'
import { loadScenes } from '../src/benchmark/scene/scene.ts'
import { sceneReference } from '../src/benchmark/scene/scene-reference.ts'
import { configurationReference, metricsReference } from '../src/cli/reference.ts'
import { chartPresets, chartReadme, chartValues } from './chart.ts'

writeFileSync(join(import.meta.dirname, 'configuration.md'), configurationReference())
writeFileSync(join(import.meta.dirname, 'metrics.md'), metricsReference())
writeFileSync(join(import.meta.dirname, 'benchmark-result.schema.json'), resultReference())
writeFileSync(join(import.meta.dirname, 'benchmark-network-result.schema.json'), networkResultReference())
const readme = join(import.meta.dirname, '../README.md')
const results = readResults(join(import.meta.dirname, '../benchmark/results'))
writeFileSync(join(import.meta.dirname, '../benchmark/parts.md'), benchmarkReference(results))
writeFileSync(readme, withBenchmarks(readFileSync(readme, 'utf8'), results))
const scenarios = join(import.meta.dirname, '../benchmark/scenarios')
writeFileSync(join(scenarios, 'README.md'), sceneReference(await loadScenes(scenarios)))
const chart = join(import.meta.dirname, '../charts/spegel-ts')
const values = chartValues(readFileSync(join(chart, 'values.yaml'), 'utf8'))
const chartPage = join(chart, 'README.md')
writeFileSync(chartPage, chartReadme(readFileSync(chartPage, 'utf8'), values, chartPresets(join(chart, 'presets'))))
