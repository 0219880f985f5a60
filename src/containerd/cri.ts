/** What a kubelet asks of containerd about images (CRI), for the demo and the tests. */
import { Metadata, type ServiceError, credentials } from '@grpc/grpc-js'
import { ImageServiceClient } from './generated/cri.ts'

/** To collect gigabytes on a slow disk. */
const removeTimeoutMs = 60_000

export class CriClient {
  readonly #client: ImageServiceClient

  constructor(socketPath: string) {
    this.#client = new ImageServiceClient(`unix:${socketPath}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.max_reconnect_backoff_ms': 1_000,
    })
  }

  /** Pulls as for a pod, with its pull secret; rejects with containerd's reason. */
  async pull(image: string, timeoutMs: number, secret?: { username: string; password: string }): Promise<string> {
    const { imageRef } = await promised<{ imageRef: string }>((callback) =>
      this.#client.pullImage(
        { image: { image }, auth: secret },
        new Metadata(),
        { deadline: Date.now() + timeoutMs },
        callback,
      ),
    )
    return imageRef
  }

  /** Returns when containerd has collected what only this image used. */
  async remove(image: string): Promise<void> {
    const deadline = Date.now() + removeTimeoutMs
    await promised((callback) =>
      this.#client.removeImage({ image: { image } }, new Metadata(), { deadline }, callback),
    )
  }

  async images(): Promise<{ id: string; repoTags: string[]; repoDigests: string[] }[]> {
    const { images } = await promised<{ images: { id: string; repoTags: string[]; repoDigests: string[] }[] }>(
      (callback) => this.#client.listImages({}, callback),
    )
    return images
  }

  close(): void {
    this.#client.close()
  }
}

/** The answer to a call of gRPC's. */
export function promised<Response>(
  start: (callback: (error: ServiceError | null, response: Response) => void) => unknown,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    start((error, response) => (error === null ? resolve(response) : reject(error)))
  })
}
