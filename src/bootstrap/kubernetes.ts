/**
 * First peers from the EndpointSlices of a Service, asked of Kubernetes' API server as the pod's service account, which
 * may list endpointslices in its namespace and nothing else. Needed to find a first peer only: a node that has one goes
 * on without the API server. All nodes use one router port.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type HostPort, formatHostPort } from '../lib/address.ts'
import { bootstrapSlicesMax } from '../limits.ts'
import { type Bootstrapper, toMultiaddr } from './bootstrapper.ts'
import { type Answer, get } from './get.ts'

export interface KubernetesBootstrapConfig {
  /** Name of the Service, in the namespace of the service account. */
  service: string
  apiServer: HostPort
  /** Of the service account: token, ca.crt and namespace. Kubernetes writes them anew while the pod runs. */
  credentialsFolder: string
}

/** What is used of a discovery.k8s.io/v1 EndpointSlice. */
interface EndpointSlice {
  addressType?: string
  endpoints?: { addresses?: string[]; conditions?: { terminating?: boolean } }[] | null
}

export function kubernetesBootstrapper(config: KubernetesBootstrapConfig, routerPort: number): Bootstrapper {
  const { service, apiServer, credentialsFolder } = config
  return {
    name: `kubernetes ${service}`,
    async peers(signal) {
      const [token, ca, namespace] = await Promise.all(
        ['token', 'ca.crt', 'namespace'].map((name) => readCredential(join(credentialsFolder, name))),
      )
      const url = new URL(`https://${formatHostPort(apiServer.host, apiServer.port)}`)
      url.pathname = `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`
      // One page names enough to begin with, and keeps the answer small where there are thousands of nodes.
      url.search = `labelSelector=kubernetes.io%2Fservice-name%3D${service}&limit=${bootstrapSlicesMax}`
      const headers = { authorization: `Bearer ${token}`, accept: 'application/json' }
      const answer = await get(url, { headers, ca }, signal)
      const slices = parseSlices(answer, url)
      if (slices.length === 0) {
        throw new Error(`there is no EndpointSlice of a Service "${service}" in namespace ${namespace}`)
      }
      return [...new Set(slices.flatMap(addressesOf))].map((ip) => toMultiaddr(ip, routerPort))
    },
  }
}

async function readCredential(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new Error('the pod has no service account token (automountServiceAccountToken)', { cause: error })
  })
  return text.trim()
}

function parseSlices({ status, text }: Answer, url: URL): EndpointSlice[] {
  const { items, message } = parseObject(text)
  if (status === 403) {
    throw new Error(`${url.host} answered 403: let the service account list endpointslices: ${String(message)}`)
  }
  if (status !== 200) throw new Error(`${url.host} answered ${[status, message].filter(Boolean).join(': ')}`)
  if (!Array.isArray(items)) throw new Error(`${url.host} answered no list of EndpointSlices`)
  return items as EndpointSlice[]
}

/** Empty for what is not a JSON object: proxies in between may answer anything. */
function parseObject(text: string): { items?: unknown; message?: unknown } {
  try {
    return (JSON.parse(text) as object | null) ?? {}
  } catch {
    return {}
  }
}

/** Also of pods that are not ready: a node that just starts can be met. Those that end are left out. */
function addressesOf({ addressType, endpoints }: EndpointSlice): string[] {
  if (addressType !== 'IPv4' && addressType !== 'IPv6') return []
  return (endpoints ?? [])
    .filter(({ conditions }) => conditions?.terminating !== true)
    .flatMap(({ addresses }) => addresses ?? [])
}
