/**
 * First peers from the EndpointSlices of a Service, asked of Kubernetes' API server as the pod's service account, which
 * may list endpointslices in its namespace and nothing else. Needed to find a first peer only: a node that has one goes
 * on without the API server. All nodes use one router port.
 */
import { KubernetesApi, type KubernetesApiConfig } from '../kubernetes/api.ts'
import { bootstrapSlicesMax } from '../limits.ts'
import { type Bootstrapper, toMultiaddr } from './bootstrapper.ts'

export interface KubernetesBootstrapConfig extends KubernetesApiConfig {
  /** Name of the Service, in the namespace of the service account. */
  service: string
}

/** What is used of a discovery.k8s.io/v1 EndpointSlice. */
interface EndpointSlice {
  addressType?: string
  endpoints?: { addresses?: string[]; conditions?: { terminating?: boolean } }[] | null
}

export function kubernetesBootstrapper(config: KubernetesBootstrapConfig, routerPort: number): Bootstrapper {
  const { service } = config
  const api = new KubernetesApi(config)
  return {
    name: `kubernetes ${service}`,
    async peers(signal) {
      const namespace = await api.namespace()
      const { items } = await api.request(
        {
          method: 'GET',
          path: `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`,
          // One page names enough to begin with, and keeps the answer small where there are thousands of nodes.
          query: `labelSelector=kubernetes.io%2Fservice-name%3D${service}&limit=${bootstrapSlicesMax}`,
          needs: 'list endpointslices',
        },
        signal,
      )
      if (!Array.isArray(items)) throw new Error(`${api.address} answered no list of EndpointSlices`)
      if (items.length === 0) {
        throw new Error(`there is no EndpointSlice of a Service "${service}" in namespace ${namespace}`)
      }
      return [...new Set((items as EndpointSlice[]).flatMap(addressesOf))].map((ip) => toMultiaddr(ip, routerPort))
    },
  }
}

/** Also of pods that are not ready: a node that just starts can be met. Those that end are left out. */
function addressesOf({ addressType, endpoints }: EndpointSlice): string[] {
  if (addressType !== 'IPv4' && addressType !== 'IPv6') return []
  return (endpoints ?? [])
    .filter(({ conditions }) => conditions?.terminating !== true)
    .flatMap(({ addresses }) => addresses ?? [])
}
