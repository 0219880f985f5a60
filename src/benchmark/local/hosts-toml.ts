/** Which mirror containerd asks: one hosts.toml for the registry, read anew by containerd at every pull. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** `mirrorPort` undefined: no mirror. The registry speaks plain HTTP, which only a host table can say. */
export async function writeHostsToml(
  certsFolder: string,
  upstream: string,
  mirrorPort: number | undefined,
): Promise<void> {
  const folder = join(certsFolder, new URL(upstream).host)
  await mkdir(folder, { recursive: true })
  const first = mirrorPort === undefined ? upstream : `http://127.0.0.1:${mirrorPort}`
  await writeFile(
    join(folder, 'hosts.toml'),
    `server = "${upstream}"\n\n[host."${first}"]\n  capabilities = ["pull", "resolve"]\n`,
  )
}
