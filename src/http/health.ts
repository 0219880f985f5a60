/** `/livez`: the process answers. `/readyz`: 200, or 503 with the reasons by name. */
import type { FastifyInstance } from 'fastify'

/** `notReady` gives why the daemon is not ready; nothing when it is. */
export function addHealthRoutes(app: FastifyInstance, notReady: () => string[]): void {
  app.route({ method: ['GET', 'HEAD'], url: '/livez', handler: (_request, reply) => reply.code(200).send() })
  app.route({
    method: ['GET', 'HEAD'],
    url: '/readyz',
    handler: (_request, reply) => {
      const reasons = notReady()
      return reply.code(reasons.length === 0 ? 200 : 503).send({ ready: reasons.length === 0, reasons })
    },
  })
}
