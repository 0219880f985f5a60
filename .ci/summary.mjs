// summary.mjs CODE RESULTS...: which tests failed, at once or at the first try, and why, and "N passed, N failed, N skipped" as the last line.
import { existsSync, readFileSync } from 'node:fs'

const reasonChars = 1_500
const [code, ...paths] = process.argv.slice(2)
const sum = { passed: 0, failed: 0, skipped: 0 }

for (const path of paths.filter((one) => existsSync(one))) {
  const results = JSON.parse(readFileSync(path, 'utf8'))
  sum.passed += results.numPassedTests
  sum.skipped += results.numPendingTests + (results.numTodoTests ?? 0)
  for (const { name, status, message, assertionResults } of results.testResults) {
    const failed = assertionResults.filter((test) => test.status === 'failed')
    const flaky = assertionResults.filter((test) => test.status === 'passed' && test.failureMessages.length > 0)
    for (const { fullName, failureMessages } of flaky) say('FLAKY', name, fullName, failureMessages.join('\n'))
    for (const { fullName, failureMessages } of failed) say('FAILED', name, fullName, failureMessages.join('\n'))
    sum.failed += failed.length
    // Suites that did not start have no tests to fail.
    if (status === 'failed' && failed.length === 0) {
      say('FAILED', name, 'did not start', message)
      sum.failed += 1
    }
  }
}
// What fails beside the tests, such as a check before them, counts as one.
if (code !== '0' && sum.failed === 0) sum.failed = 1
process.stdout.write(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped\n`)

/** Once more: the output of the first tests is long gone when the last ones end. */
function say(what, file, test, reason) {
  process.stdout.write(`${what} ${file}: ${test}\n  ${reason.slice(0, reasonChars).replaceAll('\n', '\n  ')}\n`)
}
