/** What an agent does on its node: removes images from containerd, as a kubelet would (CRI), and says when that is done. */
import { CriClient } from '../../containerd/cri.ts'
import { answerReady } from '../../lib/answer-ready.ts'
import type { HostPort } from '../../lib/address.ts'
import { UserError, errorMessage } from '../../lib/errors.ts'

export interface ClearInit {
  socketPath: string
  images: readonly string[]
  /** Where /readyz answers 200 when all is removed. */
  addr: HostPort
  signal: AbortSignal
}

/** Throws a UserError when an image stays. Resolves when it is stopped. */
export async function clearNode({ socketPath, images, addr, signal }: ClearInit): Promise<void> {
  const cri = new CriClient(socketPath)
  try {
    for (const image of images) await cri.remove(image)
    const left = new Set((await cri.images()).flatMap(({ repoTags, repoDigests }) => [...repoTags, ...repoDigests]))
    const staying = images.find((image) => left.has(image))
    if (staying !== undefined) throw new Error(`${staying} is still there: does something on this node use it?`)
  } catch (error) {
    throw new UserError(`cannot remove images by ${socketPath}: ${errorMessage(error)}`)
  } finally {
    cri.close()
  }
  await answerReady(addr, '--addr', signal)
}
