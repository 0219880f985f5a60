/** Who measured, and on what: the same in every kind of result. */
import { totalmem } from 'node:os'
import type { Result } from '../benchmark/result/schema.ts'
import type { Machine } from '../testbed/machine.ts'
import { versionInfo } from './version.ts'

export function benchmarkFacts(
  name: string,
  { commit, node, cpu, cores, kernel, load }: Machine,
  commandLine: readonly string[],
): Pick<Result, 'name' | 'tool' | 'machine'> {
  return {
    name,
    tool: { version: versionInfo().version, commit, node, command: commandLine.slice(1) },
    machine: { cpu, cores, memoryBytes: totalmem(), kernel, load },
  }
}
