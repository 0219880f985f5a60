/** A certificate authority: who is who in a cluster is said by certificates. Made with the system's openssl. */
import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Paths of PEM files. */
export interface Certificate {
  certificate: string
  key: string
}

export class Authority {
  /** Its own certificate, for those who are to trust it. */
  readonly certificate: string
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
    this.certificate = join(folder, 'authority.crt')
  }

  static async create(folder: string): Promise<Authority> {
    await mkdir(folder, { recursive: true })
    const authority = new Authority(folder)
    // The system's configuration would add extensions of its own.
    await writeFile(authority.#config, '[req]\ndistinguished_name = name\n[name]\n')
    await authority.#make('authority', '/CN=spegel-ts test', ['basicConstraints=critical,CA:TRUE'])
    return authority
  }

  /**
   * For a server, a client, or both. Kubernetes reads who a client is from the subject: the organisation is a group.
   * Names of the server: `DNS:…` and `IP:…`.
   */
  issue(name: string, subject: string, serverNames: readonly string[] = []): Promise<Certificate> {
    return this.#make(
      name,
      subject,
      [
        'basicConstraints=critical,CA:FALSE',
        'extendedKeyUsage=serverAuth,clientAuth',
        ...(serverNames.length === 0 ? [] : [`subjectAltName=${serverNames.join(',')}`]),
      ],
      ['-CA', this.certificate, '-CAkey', join(this.#folder, 'authority.key')],
    )
  }

  /** A kubeconfig for a client. Returns its text. */
  async kubeconfig(client: Certificate, server: string): Promise<string> {
    const base64 = async (path: string) => (await readFile(path)).toString('base64')
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'cluster',
      contexts: [{ name: 'cluster', context: { cluster: 'cluster', user: 'user' } }],
      clusters: [
        { name: 'cluster', cluster: { server, 'certificate-authority-data': await base64(this.certificate) } },
      ],
      users: [
        {
          name: 'user',
          user: {
            'client-certificate-data': await base64(client.certificate),
            'client-key-data': await base64(client.key),
          },
        },
      ],
    })
  }

  async #make(
    name: string,
    subject: string,
    extensions: readonly string[],
    signedBy: readonly string[] = [],
  ): Promise<Certificate> {
    const [certificate, key] = [join(this.#folder, `${name}.crt`), join(this.#folder, `${name}.key`)]
    const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '3650']
    const files = ['-config', this.#config, '-out', certificate, '-keyout', key]
    const added = extensions.flatMap((extension) => ['-addext', extension])
    await run('openssl', ['req', ...kind, ...files, '-subj', subject, ...signedBy, ...added])
    return { certificate, key }
  }

  get #config(): string {
    return join(this.#folder, 'openssl.cnf')
  }
}
