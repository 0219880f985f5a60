/** Loaded into a real daemon by `--import`: errors that nothing catches, on command. SIGUSR2 rejects, SIGHUP throws. */
process.on('SIGUSR2', () => void Promise.reject(new Error('rejected by the test')))
process.on('SIGHUP', () => {
  throw new Error('thrown by the test')
})
