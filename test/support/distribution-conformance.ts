/** Runs OCI's conformance test suite for registries, read-only, and counts what its printed report says. */
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const timeoutMs = 60_000

/** What the registry already holds: the suite cannot push to a mirror. */
export interface PreparedContent {
  /** `host:port`, asked over plain HTTP. */
  registry: string
  repository: string
  tags: readonly string[]
  manifests: readonly string[]
  blobs: readonly string[]
}

export interface ConformanceResult {
  passed: number
  failed: number
  /** Tests of what a mirror does not offer, such as pushing. */
  skipped: number
  /** Of each failed test: its name and the reasons that the suite gives. */
  failures: string[]
}

/** Pull tests only. Throws when the suite prints no complete report. */
export async function runConformance(program: string, content: PreparedContent): Promise<ConformanceResult> {
  const results = await mkdtemp(join(tmpdir(), 'distribution-conformance-'))
  try {
    return parseReport(await printed(program, { cwd: results, env: environment(content, results) }))
  } finally {
    await rm(results, { recursive: true, force: true })
  }
}

/**
 * Everything the suite prints. The exit code is not used: without pushes, this version of the suite panics when it writes
 * its report files (`ReportResultsYAML`), after it has printed the whole report.
 */
function printed(program: string, options: { cwd: string; env: NodeJS.ProcessEnv }): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, { ...options, stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs })
    let output = ''
    child.stdout.on('data', (data: Buffer) => (output += data.toString()))
    child.stderr.on('data', (data: Buffer) => (output += data.toString()))
    child.once('error', reject)
    child.once('close', () => resolve(output))
  })
}

/** The suite's settings for a registry without pushes, as in docs/conformance.md. */
function environment(content: PreparedContent, results: string): NodeJS.ProcessEnv {
  return {
    OCI_RESULTS_DIR: results,
    OCI_VERSION: '1.1',
    OCI_REGISTRY: content.registry,
    OCI_TLS: 'disabled',
    OCI_REPO1: content.repository,
    OCI_API_PULL: 'true',
    OCI_API_PUSH: 'false',
    OCI_API_BLOBS_DELETE: 'false',
    OCI_API_MANIFESTS_DELETE: 'false',
    OCI_API_TAGS_DELETE: 'false',
    OCI_API_TAGS_LIST: 'false',
    OCI_API_REFERRER: 'false',
    OCI_RO_DATA_TAGS: content.tags.join(' '),
    OCI_RO_DATA_MANIFESTS: content.manifests.join(' '),
    OCI_RO_DATA_BLOBS: content.blobs.join(' '),
  }
}

/** Reads the totals, and the reasons below each failed test: `  NAME: FAIL`, then `   - REASON`. */
function parseReport(report: string): ConformanceResult {
  const total = (status: string) => {
    const [, count] = new RegExp(`^  ${status}\\.*: +(\\d+)$`, 'm').exec(report) ?? []
    if (count === undefined)
      throw new Error(`the conformance suite printed no complete report: ${report.slice(-2_000)}`)
    return Number(count)
  }
  const failures = report.match(/^ +.*: (FAIL|Error)(\n *- .*)+/gm) ?? []
  return {
    passed: total('Pass'),
    failed: total('FAIL') + total('Error'),
    skipped: total('Skip') + total('Disabled'),
    failures: failures.map((failure) => failure.trim()),
  }
}
