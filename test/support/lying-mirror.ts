/**
 * DOUBLE of a mirror that lies about its progress, to be measured on one node of many (benchmark/mirrors/lying-node.sh).
 * For each layer that its containerd begins it tells all others that all but one byte is there. Who comes for it before it
 * really is gets headers and never a byte. Everything else is answered by the true daemon, which runs behind it.
 */
import { spawn } from 'node:child_process'
import { readFile, readdir } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../../bin/spegel-ts', import.meta.url))
const registryPort = 5000
const lookEachMs = 50

const [ip = '', peers = '', content = '', ...args] = process.argv.slice(2)
const daemonArgs = ['registry', ...args, '--registry-addr', `127.0.0.1:${registryPort}`]
const daemon = spawn(program, daemonArgs, { stdio: ['ignore', 'inherit', 'pipe'] })
daemon.on('exit', (code) => process.exit(code ?? 1))
process.on('SIGTERM', () => daemon.kill('SIGTERM'))
await lie()

async function lie(): Promise<void> {
  const id = await idOfDaemon()
  /** Bytes of the blobs that are on their way, by digest. */
  const sizes = new Map<string, number>()
  createServer((incoming, outgoing) => {
    const digest = /\/blobs\/(sha256:\w+)/.exec(incoming.url ?? '')?.[1]
    const size = digest === undefined ? undefined : sizes.get(digest)
    if (incoming.method === 'GET' && digest !== undefined && size !== undefined) {
      const first = Number(/^bytes=(\d+)-/.exec(incoming.headers.range ?? '')?.[1] ?? 0)
      const range = first === 0 ? {} : { 'content-range': `bytes ${first}-${size - 1}/${size}` }
      outgoing.writeHead(first === 0 ? 200 : 206, {
        'content-length': size - first,
        'content-type': 'application/octet-stream',
        'docker-content-digest': digest,
        ...range,
      })
      outgoing.flushHeaders()
      process.stdout.write(`${JSON.stringify({ msg: 'lied', digest, first })}\n`)
      return
    }
    const { method, url, headers } = incoming
    const onward = request({ host: '127.0.0.1', port: registryPort, method, path: url, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    onward.on('error', () => outgoing.destroy())
    outgoing.on('close', () => onward.destroy())
    incoming.pipe(onward)
  }).listen(registryPort, ip)

  const known = new Set<string>()
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, lookEachMs))
    for (const [digest, size] of await ingests()) {
      if (known.has(digest)) continue
      known.add(digest)
      sizes.set(digest, size)
      for (const peer of peers.split(',')) {
        const path = `/spegel-ts/flights/v1/${digest}/progress?node=${id}&at=${ip}&have=${size - 1}&size=${size}`
        const headers = { 'x-spegel-mirrored': 'true', 'content-length': 0 }
        const options = { host: peer === ip ? '127.0.0.1' : peer, port: registryPort, method: 'POST', path, headers }
        request(options, (answer) => answer.resume())
          .on('error', () => {})
          .end()
      }
    }
    const stored = new Set(await readdir(join(content, 'blobs/sha256')).catch(() => []))
    for (const digest of sizes.keys()) if (stored.has(digest.slice('sha256:'.length))) sizes.delete(digest)
  }
}

/** Its first words say it. */
async function idOfDaemon(): Promise<string> {
  const lines = createInterface(daemon.stderr)
  const { promise, resolve } = Promise.withResolvers<string>()
  lines.on('line', (line) => {
    process.stderr.write(`${line}\n`)
    const id = /"id":"(\w+)".*"msg":"started"/.exec(line)?.[1]
    if (id !== undefined) resolve(id)
  })
  return promise
}

/** Digest and size of each download that is running and of which containerd knows the size. */
async function ingests(): Promise<[string, number][]> {
  const folder = join(content, 'ingest')
  const found: [string, number][] = []
  for (const name of await readdir(folder).catch(() => [])) {
    const read = (file: string) => readFile(join(folder, name, file), 'utf8').catch(() => '')
    const digest = /layer-(sha256:\w+)$/.exec(await read('ref'))?.[1]
    const size = Number(await read('total'))
    if (digest !== undefined && size > 0) found.push([digest, size])
  }
  return found
}
