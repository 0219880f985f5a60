/** What is running: version, commit, runtime. */
import { readFileSync } from 'node:fs'

/** Set by the build; a checkout reads package.json. */
declare const buildVersion: string | undefined
declare const buildCommit: string | undefined

export interface VersionInfo {
  version: string
  commit: string
  node: string
  platform: string
  arch: string
}

export function versionInfo(): VersionInfo {
  return {
    version: typeof buildVersion === 'string' ? buildVersion : packageVersion(),
    commit: typeof buildCommit === 'string' ? buildCommit : 'checkout',
    node: process.version,
    platform: process.platform,
    arch: process.arch,
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
