/** `/livez`: the process answers. `/readyz`: 200, or 503 with the reasons by name; with warnings, which do not count. */
import type { FastifyInstance } from 'fastify'
import { instanceHeader } from '../lib/instance-header.ts'

export interface HealthExtras {
  /** What is wrong although the daemon is ready. */
  warnings?: (() => readonly string[]) | undefined
  /** Sent by /livez, so that a daemon can tell its own responses from those of others. */
  instance?: string | undefined
}

/** `notReady` gives why the daemon is not ready; nothing when it is. */
export function addHealthRoutes(
  app: FastifyInstance,
  notReady: () => string[],
  { warnings, instance }: HealthExtras = {},
): void {
  app.route({
    method: ['GET', 'HEAD'],
    url: '/livez',
    handler: (_request, reply) => {
      if (instance !== undefined) void reply.header(instanceHeader, instance)
      return reply.code(200).send()
    },
  })
  app.route({
    method: ['GET', 'HEAD'],
    url: '/readyz',
    handler: (_request, reply) => {
      const reasons = notReady()
      const warned = warnings?.() ?? []
      return reply
        .code(reasons.length === 0 ? 200 : 503)
        .send({ ready: reasons.length === 0, reasons, ...(warned.length === 0 ? {} : { warnings: warned }) })
    },
  })
}
