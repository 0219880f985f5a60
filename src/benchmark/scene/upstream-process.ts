/** The scripted upstream as a process of its own, in the upstream host's network; told over IPC what to do. */
import { openSync, writeSync } from 'node:fs'
import type { UpstreamAnswer, UpstreamCommand } from './scripted-upstream.ts'
import { UpstreamProxy } from './upstream-proxy.ts'

let proxy: UpstreamProxy | undefined

process.on('message', (command: UpstreamCommand) => {
  void obey(command).then(
    () => answer({ done: command.id }),
    (error: unknown) => answer({ done: command.id, error: String(error) }),
  )
})
// Nobody is left who could end it. Nothing then keeps the process.
process.on('disconnect', () => proxy?.close())

async function obey({ start, begin, end }: UpstreamCommand): Promise<void> {
  if (start !== undefined) {
    const log = openSync(start.logPath, 'a')
    // At once, so that who has seen the end of an answer finds it there.
    proxy = await UpstreamProxy.start({
      ...start,
      onAnswered: (entry) => writeSync(log, `${JSON.stringify(entry)}\n`),
    })
  }
  if (begin !== undefined) await proxy?.begin(begin.key, begin.entry)
  if (end !== undefined) await proxy?.end(end)
}

function answer(message: UpstreamAnswer): void {
  process.send?.(message)
}
