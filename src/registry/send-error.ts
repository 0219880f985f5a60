/** Refusals, all before any header was written: OCI error bodies for clients, a bare status for peers. */
import type { FastifyReply } from 'fastify'
import type { ContentRequest } from '../oci/content-request.ts'
import { type OciErrorCode, ociErrorBody } from '../oci/errors.ts'

export function sendError(reply: FastifyReply, status: number, code: OciErrorCode, message: string): void {
  void reply.code(status).type('application/json').send(ociErrorBody(code, message))
}

export function sendNotFound(
  reply: FastifyReply,
  kind: ContentRequest['kind'] | undefined,
  message: string,
  toPeer = false,
): void {
  if (toPeer) {
    // Peers look at the status only; a body would have to be read before the connection can be used again.
    void reply.code(404).send()
    return
  }
  const code = kind === undefined ? 'NAME_UNKNOWN' : kind === 'manifest' ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN'
  sendError(reply, 404, code, message)
}

/** RFC 9110 §15.5.17: states the size, so that the client can ask for what there is. */
export function sendRangeError(reply: FastifyReply, size: number): void {
  void reply.code(416).header('content-range', `bytes */${size}`).send()
}
