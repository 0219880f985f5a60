/** Objects of Kubernetes that the tests make. */

/** A pod that waits on each node. */
export function waitDaemonSet(name: string, image: string): object {
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name },
    spec: {
      selector: { matchLabels: { app: name } },
      template: { metadata: { labels: { app: name } }, spec: { containers: [{ name: 'wait', image }] } },
    },
  }
}

export function busyboxContainer(image: string, script: string, more: object = {}): object {
  // A shell that is the first process of a container ends on SIGTERM only if told so.
  return { name: 'main', image, args: ['sh', '-c', `trap 'exit 0' TERM; ${script} & wait`], ...more }
}

/** A pod of busybox with an image for a volume, at /data. */
export function imageVolumePod(name: string, nodeName: string, busybox: string, reference: string): object {
  const volumeMounts = [{ name: 'data', mountPath: '/data' }]
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
      nodeName,
      containers: [busyboxContainer(busybox, '/busybox sleep infinity', { volumeMounts })],
      volumes: [{ name: 'data', image: { reference } }],
    },
  }
}
