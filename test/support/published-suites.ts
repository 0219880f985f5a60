/**
 * The two suites that Spegel's project published on 2025-06-13 (benchmark-results, AKS, ten nodes, Kubernetes 1.33), in
 * the form of the Go tool's files: for each pull, seconds since the first one started, and milliseconds that it took.
 */

const measured = {
  Baseline: {
    '10MB-1': {
      create: '0:3449 0:3394 0:3377 0:3400 0:3408 0:3421 0:3419 0:3414 0:3415 0:3433',
      update: '7:1198 0:1395 7:1185 0:1640 5:1323 10:1130 3:1119 3:1196 5:1518 10:1149',
    },
    '10MB-4': {
      create: '0:1861 0:1686 0:1661 0:1658 0:1639 0:1663 0:1684 0:1636 0:1642 0:1667',
      update: '3:1337 8:1489 5:1308 0:1529 11:1531 5:1265 10:1404 8:1309 0:1682 3:1457',
    },
    '100MB-1': {
      create: '0:3434 0:3419 0:3435 0:3432 0:3425 0:3437 0:3457 0:3421 0:3430 0:3407',
      update: '11:1701 11:1495 13:1532 0:4032 5:1507 8:1577 0:4023 6:1489 14:1450 8:1706',
    },
    '100MB-4': {
      create: '0:3080 0:3109 0:3074 0:3105 0:3169 0:3065 0:3133 0:3115 0:3121 0:3097',
      update: '12:1449 5:1671 0:4037 14:1600 9:1467 13:1482 10:1540 6:1719 8:1476 0:4590',
    },
    '1GB-1': {
      create: '0:25497 0:25728 0:25797 0:25756 0:25819 0:25852 0:25822 0:25866 0:25841 0:25859',
      update: '0:31594 33:6102 47:6047 40:6085 55:6026 0:31592 40:6023 48:6084 55:6019 33:5996',
    },
    '1GB-4': {
      create: '0:12444 0:12467 0:12427 0:12411 0:12446 0:12425 0:12471 0:12449 0:12469 0:12410',
      update: '32:4799 32:3960 14:4878 21:4493 14:4397 1:11735 0:12441 26:4743 20:4560 26:4680',
    },
  },
  'Spegel v0.3.0': {
    '10MB-1': {
      create: '0:1890 0:1586 0:1574 0:1606 0:1935 0:1924 1:1558 0:2548 0:2415 1:1438',
      update: '6:78 0:1617 7:73 3:114 8:79 5:76 4:70 3:70 0:1584 7:77',
    },
    '10MB-4': {
      create: '0:1689 0:1706 0:1725 0:1725 0:1729 0:1706 0:1710 0:1727 0:1760 0:1757',
      update: '0:1727 7:75 7:73 0:1713 5:81 6:76 4:79 2:108 4:68 2:78',
    },
    '100MB-1': {
      create: '0:3513 1:3232 1:3231 0:3582 0:3543 0:3588 0:3539 1:3232 0:3576 0:3570',
      update: '5:406 8:395 11:448 5:397 0:4205 7:411 9:384 9:396 7:393 0:4035',
    },
    '100MB-4': {
      create: '0:2706 0:3033 0:3000 0:3059 0:3019 0:3059 0:3041 0:3005 0:3025 0:3034',
      update: '9:320 0:2760 4:336 7:335 7:334 6:320 0:2512 8:325 5:319 4:324',
    },
    '1GB-1': {
      create: '0:24042 0:24109 0:24055 0:24034 0:24125 0:24144 0:24113 0:24154 1:23867 0:24105',
      update: '0:23478 42:4730 43:4597 36:4795 25:4643 25:4605 37:4556 31:4695 0:24034 31:4640',
    },
    '1GB-4': {
      create: '0:12226 0:12228 0:12244 0:12229 0:12276 0:12227 0:12246 0:12242 0:12252 0:12214',
      update: '24:3262 0:13317 20:3303 14:3286 15:3388 24:3259 28:3295 0:13140 28:3275 19:3218',
    },
  },
} as const

export type PublishedName = keyof typeof measured

export function publishedSuite(name: PublishedName): object {
  const suite = Object.entries(measured[name])
  const nodes = Array.from({ length: 10 }, (_, index) => ({
    name: `aks-worker-12854129-vmss00000${index}`,
    instanceType: 'Standard_D8ds_v5',
    memory: 33_651_957_760,
    cpu: 8,
  }))
  return {
    kubernetesVersion: 'v1.33.0',
    name,
    timestamp: '2025-06-13T21:03:26.032913534+02:00',
    benchmarks: Object.fromEntries(
      suite.map(([key, { create, update }]) => [
        key,
        { create: measurement(`v1-${key}`, create), update: measurement(`v2-${key}`, update) },
      ]),
    ),
    nodes,
  }
}

function measurement(tag: string, pulls: string): object {
  const baseMs = Date.parse('2025-06-13T19:03:00Z')
  // As Go writes it: with the zone, and without zeros at the end.
  const time = (ms: number) =>
    new Date(ms + 7_200_000).toISOString().replace(/(?:\.0+|(\.\d*?[1-9])0*)Z$/, '$1+02:00')
  const samples = pulls.split(' ').map((pull) => {
    const [seconds = 0, milliseconds = 0] = pull.split(':').map(Number)
    const startMs = baseMs + seconds * 1000
    return { start: time(startMs), stop: time(startMs + milliseconds), duration: milliseconds * 1e6 }
  })
  return { image: `ghcr.io/spegel-org/benchmark:${tag}`, samples }
}
