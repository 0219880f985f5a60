/** The version of a containerd that may not run. */
import { ContainerdClient, isContainerdError } from './client.ts'

/** For example `1.6.20` or `v2.3.4`; undefined: nothing answers at the socket, for example before containerd's first start. */
export async function containerdVersion(socketPath: string): Promise<string | undefined> {
  const client = new ContainerdClient(socketPath, 'default')
  try {
    return await client.version()
  } catch (error) {
    if (!isContainerdError(error)) throw error
    return undefined
  } finally {
    client.close()
  }
}
