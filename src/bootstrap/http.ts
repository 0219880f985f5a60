/**
 * First peers from a URL that answers JSON: `{"ID": "12D3…", "Addrs": ["/ip4/…/tcp/5001"]}`, or a list of such
 * objects. The ID may be empty. `serveIdentity` gives the answer for this node.
 */
import { type Server, createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { join } from 'node:path'
import { listenOn } from '../lib/listen-on.ts'
import { UserError, errorMessage } from '../lib/errors.ts'
import type { HostPort } from '../lib/address.ts'
import { requestHeadersTimeoutMs } from '../limits.ts'
import { readRegularFile } from '../lib/read-file.ts'
import type { Bootstrapper } from './bootstrapper.ts'
import { ask } from '../lib/ask.ts'

/** Files of a certificate folder; server and client present the same certificate and trust the same CA. */
export interface Certificates {
  ca: Buffer
  cert: Buffer
  key: Buffer
}

/** Reads ca.crt, tls.crt and tls.key. Throws a UserError when one is missing. */
export async function readCertificates(folder: string): Promise<Certificates> {
  const read = async (name: string) => {
    try {
      return await readRegularFile(join(folder, name))
    } catch (error) {
      throw new UserError(
        `--http-bootstrap-cert-dir: ${join(folder, name)}: ${errorMessage(error)}: put ca.crt, tls.crt and tls.key there`,
      )
    }
  }
  return { ca: await read('ca.crt'), cert: await read('tls.crt'), key: await read('tls.key') }
}

export function httpBootstrapper(url: URL, certificates?: Certificates): Bootstrapper {
  return {
    name: `http ${url.href}`,
    async peers(signal) {
      const { status, text } = await ask(url, { ...certificates }, signal)
      if (status !== 200) throw new Error(`${url.href} answered ${status}`)
      return parsePeers(text, url)
    },
  }
}

/** Answers `GET /id`. `identity` is asked at each request, since addresses may come late. */
export async function serveIdentity(
  address: HostPort,
  identity: () => { id: string; addresses: string[] },
  certificates?: Certificates,
): Promise<Server> {
  const listener: Parameters<typeof createServer>[1] = (request, response) => {
    const known = (request.method === 'GET' || request.method === 'HEAD') && request.url === '/id'
    const { id, addresses } = identity()
    const body = known ? JSON.stringify({ ID: id, Addrs: addresses }) : ''
    response.writeHead(known ? 200 : 404, {
      ...(known ? { 'content-type': 'application/json' } : {}),
      'content-length': Buffer.byteLength(body),
    })
    response.end(request.method === 'HEAD' ? '' : body)
  }
  const server =
    certificates === undefined
      ? createServer(listener)
      : createTlsServer({ ...certificates, requestCert: true, rejectUnauthorized: true }, listener)
  server.headersTimeout = requestHeadersTimeoutMs
  await listenOn(server, address, '--http-bootstrap-addr')
  return server
}

function parsePeers(text: string, url: URL): string[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    throw new Error(`${url.href} did not answer JSON`, { cause: error })
  }
  const peers = (Array.isArray(parsed) ? parsed : [parsed]).map((entry: unknown) => ({
    entry,
    found: readPeer(entry),
  }))
  if (peers.length > 0 && peers.every(({ found }) => found === undefined)) {
    throw new Error(`${url.href} answered no {"ID", "Addrs"}`)
  }
  // An entry that cannot be read is passed on as text, so that it is reported like an address that cannot be dialled.
  return peers.flatMap(({ entry, found }) => found ?? [asText(entry)])
}

/** Undefined when the entry has no list of addresses. */
function readPeer(entry: unknown): string[] | undefined {
  const { ID, Addrs } = (entry ?? {}) as { ID?: unknown; Addrs?: unknown }
  if (!Array.isArray(Addrs)) return undefined
  const id = typeof ID === 'string' && ID !== '' ? `/p2p/${ID}` : ''
  return Addrs.map(asText).map((address) => (address.includes('/p2p/') ? address : `${address}${id}`))
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}
