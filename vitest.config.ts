import { defineConfig } from 'vitest/config'

/** Of a machine that builds tools beside them, as a fresh one does, they get a third of the time that they get alone. */
const fast = { testTimeout: 60_000, hookTimeout: 60_000 }
/**
 * Tests with real processes: what fails is tried once more, and told by `.ci/run` as FLAKY if it passes then. That is a
 * bug of the test or of the code, to be mended, but not by the change at hand. Faults in the middle of pulls have one try.
 */
const real = { retry: 1 }
/** Real containerd in namespaces: one file after the other, since they share two cores. */
const slow = { ...real, testTimeout: 180_000, hookTimeout: 600_000, fileParallelism: false, maxWorkers: 1 }

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: '.cache/test-results.json' }]],
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], ...fast } },
      { test: { name: 'conformance', include: ['test/conformance/**/*.test.ts'], ...fast } },
      { test: { name: 'daemon', include: ['test/daemon/**/*.test.ts'], ...fast, ...real, testTimeout: 120_000 } },
      // Helm and the check by Kubernetes' code are built the first time.
      { test: { name: 'chart', include: ['test/chart/**/*.test.ts'], ...fast, hookTimeout: 600_000 } },
      { test: { name: 'system', include: ['test/system/**/*.test.ts'], ...slow } },
      // Measurements, beside other tools: they want the machine for themselves.
      { test: { name: 'network', include: ['test/network/**/*.test.ts'], ...slow } },
      // The first time, all of Kubernetes is built.
      { test: { name: 'kubernetes', include: ['test/kubernetes/**/*.test.ts'], ...slow, hookTimeout: 2_400_000 } },
    ],
    coverage: {
      provider: 'v8',
      include: ['src/**'],
      exclude: ['**/generated/**'],
      reporter: ['text-summary', 'html'],
    },
  },
})
