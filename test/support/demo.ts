/** Runs the demo as a user would, for programs. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Scene } from '../../src/demo/story.ts'

export interface DemoResult {
  ok: boolean
  imageBytes: number
  scenes: Scene[]
}

/** Rejects when the exit code is not 0. */
export async function runDemo(options: readonly string[] = []): Promise<DemoResult> {
  const program = join(import.meta.dirname, '../../src/demo/main.ts')
  const { stdout } = await promisify(execFile)(process.execPath, [program, '--json', ...options])
  return JSON.parse(stdout) as DemoResult
}
