/** Runs as a child process: `configuration` on a folder that this user may not write. Prints the error. */
import { pino } from 'pino'
import { configureHosts } from '../../src/hosts/apply.ts'

const [folder = ''] = process.argv.slice(2)
if (process.getuid?.() === 0) {
  // Modules are loaded by now: nobody need not be able to read the checkout.
  process.setgid?.(65_534)
  process.setuid?.(65_534)
}
try {
  await configureHosts(
    {
      directory: folder,
      containerdVersion: undefined,
      registries: [{ host: '_default', server: undefined }],
      targets: ['http://127.0.0.1:5000'],
      resolveTags: true,
      prependExisting: true,
      authorization: undefined,
    },
    pino({ level: 'silent' }),
  )
} catch (error) {
  process.stdout.write(error instanceof Error ? `${error.name}: ${error.message}` : String(error))
}
