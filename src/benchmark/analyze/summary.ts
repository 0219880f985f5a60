/** What is said before the tables: failures first, then the headlines, then how many rounds count. */
import { cells, isGood } from './cells.ts'
import { allImages, compareMirrors, pullRow } from './comparison.ts'
import { type Measurements, type PhaseRun, phaseNames } from './measurements.ts'

export interface Summary {
  /** The first line says how many; then one line for each. */
  failures: string[]
  headlines: string[]
  rounds: string[]
}

export function summary(measurements: Measurements): Summary {
  return { failures: failedPulls(measurements), headlines: headlines(measurements), rounds: rounds(measurements) }
}

function failedPulls({ runs, expectFailures }: Measurements): string[] {
  const failed = runs.flatMap((run) =>
    run.measured.pulls
      .filter(({ error }) => error !== undefined)
      .map(({ node, error }) => `${run.image}, ${run.phase}, ${run.mirror}, ${roundText(run)}, ${node}: ${error}`),
  )
  const total = runs.reduce((sum, { measured }) => sum + measured.pulls.length, 0)
  const expected = expectFailures === 0 ? '' : ` (the scene expects at most ${expectFailures} in a phase)`
  return [`Failed pulls: ${failed.length === 0 ? 'none' : failed.length} of ${total}${expected}`, ...failed]
}

/** One sentence for each mirror and phase. */
function headlines(measurements: Measurements): string[] {
  const [baseline, ...others] = measurements.mirrors
  if (baseline === undefined) return []
  return others.flatMap((other) => {
    const comparison = compareMirrors(measurements, baseline, other)
    return phaseNames.flatMap((phase) => {
      const [onlyImage = ''] = measurements.images
      const row = pullRow(comparison, measurements.images.length === 1 ? onlyImage : allImages, phase)
      if (row === undefined) return []
      return [`${phase}, ${row.image}: pulls with ${other} against ${baseline}: ${row.verdict}.`]
    })
  })
}

function rounds(measurements: Measurements): string[] {
  const { runs, hasRounds } = measurements
  if (!hasRounds) {
    return [
      'A single run per mirror: it gives no interval between runs. Intervals are across the nodes of that run, and the next run may differ by more.',
    ]
  }
  // create and update of a round are noisy together: one of them is counted.
  const attempts = [
    ...new Map(runs.map((run) => [`${run.image} ${run.mirror} ${run.round} ${run.attempt}`, run])).values(),
  ]
  const real = attempts.filter(({ round }) => round > 0)
  const good = real.filter(isGood).length
  const repeated = real.filter(({ counts }) => !counts).length
  const noisy = real.filter(({ counts, noise }) => counts && noise.length > 0).length
  const onlyNoisy = cells(measurements).filter((cell) => cell.onlyNoisy)
  return [
    `Rounds (of an image with a mirror): ${good} good, ${repeated} repeated because of noise, ${noisy} noisy to the end, ${attempts.length - real.length} warm-ups.`,
    ...onlyNoisy.map(
      ({ image, phase, mirror }) => `Only noisy rounds: ${image}, ${phase}, ${mirror}: its figures are doubtful.`,
    ),
  ]
}

function roundText({ round, attempt }: PhaseRun): string {
  return `round ${round}${attempt > 1 ? `, attempt ${attempt}` : ''}`
}
