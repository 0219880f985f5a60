/** Result files as Spegel's benchmark tool writes them. */

/** Pull times of each node in ms; all start together in `create`, one after the other in `update`. */
export function goMeasurement(milliseconds: readonly number[]): { create: object; update: object } {
  const sample = (start: number, duration: number) => ({
    start: new Date(start).toISOString().replace('Z', '000001+00:00'),
    stop: new Date(start + duration).toISOString(),
    duration: duration * 1e6,
  })
  const base = Date.parse('2024-05-01T10:00:00Z')
  const image = 'ghcr.io/spegel-org/benchmark:v1-10MB-1'
  return {
    create: { image, samples: milliseconds.map((duration) => sample(base, duration)) },
    update: { image, samples: milliseconds.map((duration, index) => sample(base + 1_000 * index, duration)) },
  }
}

export function goSuite(name: string, milliseconds: readonly number[]): Record<string, unknown> {
  return {
    kubernetesVersion: 'v1.29.2',
    name,
    timestamp: '2024-05-01T10:00:00Z',
    benchmarks: { '10MB-1': goMeasurement(milliseconds) },
    nodes: milliseconds.map((_, index) => ({
      name: `aks-${index}`,
      instanceType: 'Standard_D4ds_v5',
      memory: '16Gi',
      cpu: '4',
    })),
  }
}
