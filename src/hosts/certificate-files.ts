/**
 * A registry's folder without hosts.toml, in Docker's form: `*.crt` are authorities to trust, `*.cert` and `*.key` say who
 * we are. containerd reads them only while there is no hosts.toml, so one that is made there has to name them.
 */
import { readdir } from 'node:fs/promises'
import { stringify } from 'smol-toml'

/** What they say, as top of a hosts.toml; files are relative to the folder. Undefined: there are none. */
export async function certificatesToml(folder: string): Promise<string | undefined> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  const names = entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name)
  const ca = names.filter((name) => name.endsWith('.crt')).sort()
  const client = names
    .filter((name) => name.endsWith('.cert'))
    .sort()
    .map((name) => {
      const key = name.replace(/\.cert$/, '.key')
      // Without one it is in the same file.
      return [name, names.includes(key) ? key : name]
    })
  if (ca.length === 0 && client.length === 0) return undefined
  return stringify({ ...(ca.length === 0 ? {} : { ca }), ...(client.length === 0 ? {} : { client }) })
}
