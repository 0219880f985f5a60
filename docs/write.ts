/** Writes the generated reference pages beside this file. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { configurationReference, metricsReference } from '../src/cli/reference.ts'

writeFileSync(join(import.meta.dirname, 'configuration.md'), configurationReference())
writeFileSync(join(import.meta.dirname, 'metrics.md'), metricsReference())
