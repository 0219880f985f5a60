/** How it was measured, as pairs of words: the machine, the links, the rounds. */
import type { GoRun } from '../result/go-tool.ts'
import type { Phase, Result } from '../result/schema.ts'
import { bytesText, rateText, seconds, trimmed } from './format.ts'

export interface Fact {
  what: string
  value: string
}

export function setUp({
  name,
  started,
  updated,
  complete,
  tool,
  machine,
  set,
  links,
  mirrors,
  rounds,
}: Result): Fact[] {
  const runtimes = [...new Set(set.nodes.map(({ runtime }) => runtime))].join(', ')
  const facts: (Fact | undefined)[] = [
    {
      what: 'result',
      value: `${name}, ${started} to ${updated}${complete ? '' : ', NOT COMPLETE: broken off; the same command goes on'}`,
    },
    { what: 'tool', value: `spegel-ts ${tool.version}, commit ${tool.commit}, Node ${tool.node}` },
    { what: 'command', value: tool.command.join(' ') },
    {
      what: 'machine',
      value: `${machine.cores} × ${machine.cpu}, ${bytesText(machine.memoryBytes)}, Linux ${machine.kernel}`,
    },
    { what: 'load at the start', value: trimmed(machine.load) },
    {
      what: 'nodes',
      value: `${set.nodes.length} (${set.target}), ${runtimes}; updates in waves of ${set.waveSize}, pulls of a wave ${seconds(set.stagger)} s apart`,
    },
    ...(set.kubernetes === undefined ? [] : [{ what: 'Kubernetes', value: set.kubernetes }]),
    ...(set.leftOut ?? []).map(({ name: node, why }) => ({ what: 'node left out', value: `${node}: ${why}` })),
    ...(set.storage === undefined ? [] : [{ what: 'nodes keep their files in', value: set.storage }]),
    { what: 'links, set', value: `upstream ${set.upstreamRate ?? 'as it is'}, node ${set.nodeRate ?? 'as it is'}` },
    links === undefined
      ? undefined
      : {
          what: 'links, measured',
          value: `upstream ${rateText(links.upstream)} (one connection ${rateText(links.upstreamSingle)}), node out ${rateText(links.nodeOut)}, node in ${rateText(links.nodeIn)}`,
        },
    set.scene === undefined
      ? undefined
      : { what: 'scene', value: `${set.scene}, at most ${set.expectFailures} failed pulls per phase expected` },
    { what: 'rounds', value: `${set.rounds} wanted, mirrors take turns in each, seed ${set.seed}` },
    ...mirrors.map((mirror) => ({ what: `mirror ${mirror.name}`, value: mirror.command ?? 'no command' })),
    ...[...new Set(rounds.flatMap(({ phases }) => [phases.create, phases.update]).flatMap(remarksOf))].map(
      (value) => ({
        what: 'remark',
        value,
      }),
    ),
  ]
  return facts.filter((fact) => fact !== undefined)
}

function remarksOf(phase: Phase | undefined): readonly string[] {
  return phase?.remarks ?? []
}

export function goSetUp({ name, path, kubernetesVersion, timestamp, nodes }: GoRun): Fact[] {
  const kinds = [
    ...new Set(nodes.map(({ instanceType, cpu, memory }) => `${instanceType}, ${cpu} CPU, ${memory} memory`)),
  ]
  const where = [
    timestamp,
    kubernetesVersion === undefined ? undefined : `Kubernetes ${kubernetesVersion}`,
    nodes.length === 0 ? undefined : `${nodes.length} nodes (${kinds.join('; ')})`,
  ].filter((part) => part !== undefined)
  return [{ what: `mirror ${name}`, value: `${path}: Go tool's file${where.map((part) => `, ${part}`).join('')}` }]
}
