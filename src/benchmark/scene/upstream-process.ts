/** The scripted upstream as a process of its own, in the upstream host's network; told over IPC what to do. */
import { openSync, writeSync } from 'node:fs'
import type { UpstreamAnswer, UpstreamCommand } from './scripted-upstream.ts'
import { UpstreamProxy } from './upstream-proxy.ts'

const [ip = '', port = '', registryUrl = '', logPath = ''] = process.argv.slice(2)

const log = openSync(logPath, 'a')
const proxy = await UpstreamProxy.start({
  ip,
  port: Number(port),
  registryUrl,
  // At once, so that who has seen the end of an answer finds it here.
  onAnswered: (entry) => writeSync(log, `${JSON.stringify(entry)}\n`),
})

process.on('message', (command: UpstreamCommand) => {
  const done = command.begin === undefined ? proxy.end(command.key) : proxy.begin(command.key, command.begin)
  void done.then(
    () => answer({ done: command.id }),
    (error: unknown) => answer({ done: command.id, error: String(error) }),
  )
})
process.on('disconnect', () => process.exit())
answer({ done: 0 })

function answer(message: UpstreamAnswer): void {
  process.send?.(message)
}
