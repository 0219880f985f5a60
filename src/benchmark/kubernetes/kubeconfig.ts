/** Which cluster, and as whom: kubeconfig files as kubectl reads them, with every way to log in that they know. */
import { existsSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { KubeConfig } from '@kubernetes/client-node'
import { UserError, errorMessage } from '../../lib/errors.ts'

export interface KubeconfigInit {
  /** Paths, separated as in PATH. Undefined: where kubectl would look. */
  files: string | undefined
  /** Undefined: the current one. */
  context: string | undefined
  home: string | undefined
}

/** Throws a UserError that names the file. */
export function readKubeconfig({ files, context, home }: KubeconfigInit): KubeConfig {
  const paths = (files ?? (home === undefined ? '' : join(home, '.kube/config'))).split(delimiter).filter(Boolean)
  const [first] = paths
  if (first === undefined) throw new UserError('which cluster? Give --kubeconfig FILE')
  const config = new KubeConfig()
  for (const path of paths) {
    if (!existsSync(path)) {
      throw new UserError(
        `--kubeconfig: ${path} does not exist${files === undefined ? ': give the path of yours' : ''}`,
      )
    }
    try {
      const stats = statSync(path)
      // A FIFO is how a shell passes the output of a program; a device may have no end.
      if (!stats.isFile() && !stats.isFIFO()) throw new Error('not a file')
      const one = new KubeConfig()
      one.loadFromFile(path)
      // As kubectl: the first file that names a context decides.
      config.mergeConfig(one, Boolean(config.currentContext))
    } catch (error) {
      throw new UserError(`--kubeconfig: ${path} cannot be read as a kubeconfig: ${errorMessage(error)}`)
    }
  }
  const where = `--kubeconfig ${paths.join(delimiter)}`
  const names = config.getContexts().map(({ name }) => name)
  if (context !== undefined) config.setCurrentContext(context)
  const chosen = config.getContextObject(config.getCurrentContext())
  if (chosen === null) {
    const problem =
      context === undefined ? `${where} has no current-context` : `--context: ${where} has no "${context}"`
    throw new UserError(`${problem}: it has ${names.join(', ') || 'none at all'}`)
  }
  if (config.getCurrentCluster() === null) {
    throw new UserError(`${where}: context ${chosen.name} names cluster "${chosen.cluster}", which is not in it`)
  }
  if (config.getCurrentUser() === null) {
    throw new UserError(`${where}: context ${chosen.name} names user "${chosen.user}", which is not in it`)
  }
  return config
}
