/** A complete command line of every command, which runs or fails within seconds, without a cluster and without containerd. */
import { cp, mkdir } from 'node:fs/promises'
import { join } from 'node:path'

/** Options by flag, over files below the directory. A command that is missing here fails the test that asks for it. */
const byCommand: Readonly<Record<string, (directory: string) => Record<string, readonly string[]>>> = {
  registry: (directory) => ({
    '--oci-layout': [join(directory, 'layout')],
    '--registry-addr': ['127.0.0.1:0'],
    '--router-addr': ['127.0.0.1:0'],
    '--metrics-addr': ['127.0.0.1:0'],
    '--bootstrap-kind': ['static'],
    '--shutdown-grace': ['0s'],
  }),
  configuration: (directory) => ({
    '--containerd-registry-config-path': [join(directory, 'certs.d')],
    '--mirror-targets': ['http://127.0.0.1:5000'],
  }),
  prepare: (directory) => ({ '--data-dir': [join(directory, 'data')], '--owner': ['0:0'] }),
  cleanup: (directory) => ({
    '--addr': ['127.0.0.1:0'],
    '--containerd-registry-config-path': [join(directory, 'certs.d')],
    '--data-dir': [join(directory, 'data')],
  }),
  'cleanup-wait': () => ({ '--probe-endpoint': ['127.0.0.1:1'], '--period': ['100ms'] }),
  version: () => ({}),
  'benchmark generate': (directory) => ({ '--size': ['20KB'], '--output': [join(directory, 'output')] }),
  // Without programs on PATH they only come as far as their options.
  'benchmark measure': (directory) => ({
    '--result-dir': [join(directory, 'result')],
    '--images': ['v1-1KB-1', 'v2-1KB-1'],
    '--target': ['local'],
  }),
  'benchmark suite': (directory) => ({ '--result-dir': [join(directory, 'result')], '--target': ['local'] }),
  'benchmark analyze': (directory) => ({ '--path': [join(directory, 'measured')] }),
  'benchmark export': (directory) => ({
    '--path': [join(directory, 'measured')],
    '--output-dir': [join(directory, 'exported')],
  }),
  'benchmark local down': () => ({}),
  'benchmark network serve': () => ({ '--listen-addr': ['127.0.0.1:0'] }),
  'benchmark network run': (directory) => ({
    '--path': ['a=127.0.0.1:1'],
    '--result-dir': [join(directory, 'result')],
    '--rounds': ['1'],
    '--duration': ['100ms'],
  }),
  'benchmark kubernetes rights': () => ({}),
  'benchmark kubernetes down': (directory) => ({ '--kubeconfig': [join(directory, 'kubeconfig')] }),
  'benchmark kubernetes clear': (directory) => ({
    '--containerd-sock': [join(directory, 'containerd.sock')],
    '--addr': ['127.0.0.1:0'],
  }),
}

/** What the command lines need. */
export async function makeFiles(directory: string): Promise<void> {
  await mkdir(join(directory, 'layout'))
  await mkdir(join(directory, 'data'))
  await cp(join(import.meta.dirname, '../../benchmark/rollouts/staggered-8-nodes'), join(directory, 'measured'), {
    recursive: true,
  })
}

/** The command's words and options; `without` names options that are left out. */
export function commandLine(name: string, directory: string, without: readonly string[] = []): string[] {
  const options = byCommand[name]?.(directory)
  if (options === undefined) throw new Error(`${name} has no command line in test/support/command-lines.ts`)
  const kept = Object.entries(options).filter(([flag]) => !without.includes(flag))
  return [...name.split(' '), ...kept.flatMap(([flag, values]) => values.map((value) => `${flag}=${value}`))]
}
