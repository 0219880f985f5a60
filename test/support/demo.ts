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

/** Rejects when the exit code is not 0, with what it printed. */
export async function runDemo(options: readonly string[] = []): Promise<DemoResult> {
  const program = join(import.meta.dirname, '../../src/demo/main.ts')
  const running = promisify(execFile)(process.execPath, [program, '--json', ...options])
  const { stdout } = await running.catch((error: Error & { stdout: string }) => {
    throw new Error(`${error.message}\n${error.stdout}`)
  })
  return JSON.parse(stdout) as DemoResult
}
