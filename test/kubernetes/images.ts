/** Images that the tests run. */
import { readFile } from 'node:fs/promises'
import { addToIndex, type Descriptor, writeJson, writeLayer } from '../../src/images/layout.ts'
import { mediaTypes } from '../../src/images/media-types.ts'
import { tar } from '../../src/images/tar.ts'
import type { KubernetesTools } from '../../src/testbed/tools.ts'

const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

/** A shell, a web server and a DNS client: `/busybox APPLET …`. */
export async function writeBusyboxImage(layout: string, name: string, tools: KubernetesTools): Promise<Descriptor> {
  const program = await readFile(tools.busybox)
  const files = [{ path: 'busybox', mode: 0o755, sizeBytes: program.length, content: [program] }]
  const { blob, diffId } = await writeLayer(layout, tar(files))
  const { config: configType, layer: layerType, manifest: manifestType } = mediaTypes.oci
  const config = await writeJson(layout, configType, {
    architecture: architectures[process.arch],
    os: 'linux',
    config: { Entrypoint: ['/busybox'] },
    rootfs: { type: 'layers', diff_ids: [diffId] },
  })
  const manifest = await writeJson(layout, manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    config,
    layers: [{ mediaType: layerType, ...blob }],
  })
  await addToIndex(layout, manifest, name)
  return manifest
}
