/** Where to push an image: `http://host:port/repository:tag`; without `http://` over TLS. */
import { UserError } from '../lib/errors.ts'
import { parseImageReference } from '../oci/reference.ts'

export interface PushTarget {
  /** As a user would write it; holds no secret. */
  name: string
  origin: string
  /** As `docker login` names it. */
  registry: string
  repository: string
  tag: string
}

/** Docker Hub's name is not the name of its registry's host. */
const dockerHub = { name: 'docker.io', host: 'registry-1.docker.io' }

/** Throws a UserError. */
export function parsePushTarget(text: string): PushTarget {
  const [, scheme = 'https://', rest = ''] = /^(https?:\/\/)?(.*)$/s.exec(text) ?? []
  // Before anything is repeated in a message: it may be a password.
  if (rest.includes('@')) {
    throw new UserError(
      'where to push: write no "@", neither a user name nor a digest; docker login keeps user names',
    )
  }
  const reference = parseImageReference(rest)
  const host = reference?.registry === dockerHub.name ? dockerHub.host : reference?.registry
  // As requests spell it, without a port that goes without saying: credentials are for this origin only.
  const origin = URL.parse(`${scheme}${host}`)?.origin
  if (reference?.tag === undefined || origin === undefined) {
    throw new UserError(
      `"${text}" is not where an image can be pushed: write HOST[:PORT]/REPOSITORY:TAG, with http:// for a registry without TLS`,
    )
  }
  const { registry, repository, tag } = reference
  return { name: text, origin, registry, repository, tag }
}
