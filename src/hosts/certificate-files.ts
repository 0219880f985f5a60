/**
 * A registry's directory without hosts.toml, in Docker's form: `*.crt` are CAs to trust, `*.cert` and `*.key` are client
 * certificates. containerd reads them only while there is no hosts.toml, so one of ours has to name them.
 */
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import type { TomlTable } from 'smol-toml'
import { parsed } from '../lib/foreign.ts'
import { ObstacleError } from './hosts-file.ts'
import type { UserView } from './user-view.ts'

/** As top-level settings of a hosts.toml; files are relative to the directory. Empty: there are none. */
export async function certificateSettings(view: UserView, location: string): Promise<TomlTable> {
  const entries = await view.list(location)
  const names = entries.filter(({ isDirectory }) => !isDirectory).map(({ name }) => name)
  const ca = names.filter((name) => name.endsWith('.crt'))
  const client = names
    .filter((name) => name.endsWith('.cert'))
    .map((name) => {
      const key = name.replace(/\.cert$/, '.key')
      // Without a key file, the key is in the certificate's file.
      return [name, entries.some((entry) => entry.name === key) ? key : name] as const
    })
  return {
    ...(ca.length === 0 ? {} : { ca }),
    ...(client.length === 0 ? {} : { client: client.map((pair) => [...pair]) }),
  }
}

/**
 * containerd fails for a registry with a certificate that it cannot load. Throws an ObstacleError for one in certs.d;
 * returns the path of one that is elsewhere and not found, where containerd may see more than this process.
 */
export async function checkCertificates(
  view: UserView,
  directory: string,
  { ca, client }: { ca: readonly string[]; client: readonly (readonly [string, string])[] },
): Promise<string | undefined> {
  let notFound: string | undefined
  const read = async (file: string) => {
    const path = file.startsWith('/') ? file : join(directory, file)
    const { bytes, outside } = await view.bytes(path)
    if (bytes === undefined && !outside) throw unusable(file, 'cannot be read')
    if (bytes === undefined) notFound ??= path
    return bytes
  }
  for (const file of ca) {
    const bytes = await read(file)
    if (bytes !== undefined && !hasCertificate(bytes)) throw unusable(file, 'contains no certificate')
  }
  for (const [certificate, key] of client) {
    const [cert, privateKey] = [await read(certificate), await read(key)]
    if (cert !== undefined && privateKey !== undefined && !isPair(cert, privateKey)) {
      throw unusable(certificate, `and ${key} are not a certificate and its key`)
    }
  }
  return notFound
}

function unusable(file: string, problem: string): ObstacleError {
  return new ObstacleError(`${file} ${problem}, so containerd fails for this registry`, 'repair or remove that file')
}

/** One is enough: containerd skips what is no certificate. */
function hasCertificate(bytes: Buffer): boolean {
  const blocks = bytes.toString('latin1').match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g) ?? []
  return blocks.some((block) => parsed(() => new X509Certificate(block)) !== undefined)
}

function isPair(cert: Buffer, key: Buffer): boolean {
  return parsed(() => createSecureContext({ cert, key })) !== undefined
}
