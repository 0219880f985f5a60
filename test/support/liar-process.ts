/**
 * DOUBLE of holders, as a process of its own in a host of the test-bed: each is found in the swarm like any node,
 * through a real router, and answers on the registry port as it likes (`scripted-peer.ts`).
 */
import { readFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { pino } from 'pino'
import { staticBootstrapper } from '../../src/bootstrap/static.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { systemRandom } from '../../src/lib/random.ts'
import { createMetrics } from '../../src/metrics.ts'
import { KadRouter } from '../../src/router/kad-router.ts'
import { type PeerRequest, type PeerScript, ScriptedPeer, answer, honest } from './scripted-peer.ts'

export type Lie = keyof typeof lies

export interface LiarInit {
  ip: string
  lie: Lie
  /** Keys that it says it has. */
  keys: string[]
  /** What it really has, by path of a request. */
  files: Record<string, { digest: string; file: string }>
}

export interface LiarsInit {
  firstPeers: string[]
  liars: LiarInit[]
}

/** To the parent: all are in the swarm; somebody was asked for something. */
export type LiarMessage = { ready: true } | { asked: string; method: string; path: string }

type Script = (socket: Socket, request: PeerRequest, content: Buffer, digest: string) => void

/** About blobs only: who lies in a manifest's bytes is found out before the first of them is passed on. */
const aboutBlobs =
  (script: Script): Script =>
  (socket, request, content, digest) => {
    if (content.length > 1024 * 1024) script(socket, request, content, digest)
    else trueAnswer(socket, request, content, digest)
  }

/** To questions for manifests, configurations and other small things. */
const trueAnswer: Script = (socket, request, content, digest) => {
  if (request.path.includes('/blobs/')) {
    socket.write(honest(request, content, digest))
    return
  }
  const { mediaType } = JSON.parse(content.toString()) as { mediaType: string }
  const headers = { 'content-type': mediaType, 'content-length': content.length, 'docker-content-digest': digest }
  socket.write(answer(200, headers, request.method === 'HEAD' ? Buffer.alloc(0) : content))
}

const lies = {
  'answers 500': (socket) => void socket.write(answer(500, {})),
  'answers 429': (socket) => void socket.write(answer(429, {})),
  'answers nonsense': (socket) => void socket.write('SSH-2.0-OpenSSH_9.2\r\n\r\n'),
  'sends endless headers': (socket) => {
    socket.write('HTTP/1.1 200 OK\r\n')
    const line = `x-header: ${'y'.repeat(1_000)}\r\n`
    const next = () => {
      if (!socket.destroyed) socket.write(line, () => setTimeout(next, 1))
    }
    next()
  },
  'never answers': () => undefined,
  'has manifests that are no manifests': (socket, request, content, digest) => {
    if (request.path.includes('/blobs/')) socket.write(answer(404, {}))
    else socket.write(honest(request, content, digest))
  },
  'breaks off after 1,000 bytes each time': aboutBlobs((socket, request, content, digest) => {
    socket.end(honest(request, content, digest, 1_000))
  }),
  'sends other ranges than asked': aboutBlobs((socket, _request, content, digest) => {
    const body = content.subarray(7, 7 + 1024 * 1024)
    const range = { 'content-range': `bytes 7-${6 + body.length}/${content.length}` }
    socket.write(answer(206, { ...range, 'docker-content-digest': digest }, body))
  }),
  'sends a byte per second': aboutBlobs((socket, request, content, digest) => {
    socket.write(honest(request, content, digest, 0))
    const first = Number(/^bytes=(\d+)-/.exec(request.headers['range'] ?? '')?.[1] ?? 0)
    let sent = first
    const timer = setInterval(() => socket.write(content.subarray(sent, ++sent)), 1_000)
    socket.on('close', () => clearInterval(timer))
  }),
  'says that the blob is shorter': aboutBlobs((socket, request, content, digest) => {
    socket.write(honest(request, content.subarray(0, content.length / 2), digest))
  }),
} as const satisfies Record<string, Script>

async function start({ firstPeers, liars }: LiarsInit): Promise<void> {
  await Promise.all(
    liars.map(async ({ ip, lie, keys, files }) => {
      const script: PeerScript = (socket, request) => {
        const path = request.path.replace(/\?.*/, '')
        process.send?.({ asked: lie, method: request.method, path } satisfies LiarMessage)
        void respond(lies[lie], files[path], socket, request)
      }
      await ScriptedPeer.start(ip, 5000, script)
      const router = await KadRouter.start(
        {
          listen: { host: ip, port: 5001 },
          advertisedIps: [ip],
          dataDir: undefined,
          version: 'test',
          providersWanted: 10,
        },
        {
          bootstrapper: staticBootstrapper(firstPeers),
          clock: systemClock,
          random: systemRandom,
          logger: pino({ level: 'silent' }),
          metrics: createMetrics(),
        },
      )
      router.advertise(keys)
    }),
  )
  process.send?.({ ready: true } satisfies LiarMessage)
}

async function respond(
  script: Script,
  found: LiarInit['files'][string] | undefined,
  socket: Socket,
  request: PeerRequest,
): Promise<void> {
  if (found === undefined) socket.write(answer(404, {}))
  else script(socket, request, await readFile(found.file), found.digest)
}

process.on('message', (init: LiarsInit) => void start(init))
process.on('disconnect', () => process.exit())
