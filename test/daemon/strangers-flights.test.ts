/** Attacks of a program that sends flight messages in the name of other nodes. */
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { joinPath, parseAnswer, reportPath } from '../../src/flights/protocol.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { DaemonGroup } from '../support/daemons.ts'
import { type FlightTestNode, flightNodePort, flightPeer, startFlightNode } from '../support/flight-node.ts'

const group = new DaemonGroup()
const digest = digestOf(Buffer.from('blob'))
const strangerIp = '127.9.9.9'
const size = 2 ** 20
const load = { blobCount: 1, feeds: 0 }

let coordinator: FlightTestNode
beforeEach(async () => {
  coordinator = await startFlightNode(group, 1, { coordinatorNumber: 1 })
})
afterEach(() => coordinator.close())

async function post(fromIp: string, path: string) {
  const options = { method: 'POST', host: group.address(1), port: flightNodePort, path, localAddress: fromIp }
  const outgoing = request({ ...options, agent: false }).end()
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  const text = Buffer.concat(await response.toArray()).toString()
  return { status: response.statusCode, answer: parseAnswer(text) }
}

const join = (number: number, addresses = flightPeer(group, number).addresses) =>
  joinPath(digest, {
    node: { id: `node-${number}`, addresses },
    haveBytes: 0,
    size,
    load,
    waitMs: 0,
    avoid: undefined,
    gone: undefined,
    keep: undefined,
    isSlow: false,
    image: undefined,
    holder: undefined,
  })
const progress = (number: number, addresses = flightPeer(group, number).addresses) => {
  const node = { id: `node-${number}`, addresses }
  return reportPath(digest, { kind: 'progress', node, haveBytes: size / 2, size, load, busy: undefined })
}

it('cannot send followers to an address of its own', async () => {
  expect(await post(group.address(2), join(2))).toMatchObject({ answer: { kind: 'lease' } })
  expect(await post(strangerIp, progress(2, [strangerIp]))).toMatchObject({ status: 400 })
  // Neither by the address of another node in a message of its own.
  expect(await post(group.address(2), progress(2, [...flightPeer(group, 2).addresses, strangerIp]))).toMatchObject({
    status: 200,
  })
  const follower = await post(group.address(3), join(3))
  expect(follower.answer).toEqual({ kind: 'source', source: flightPeer(group, 2) })
})

it('cannot end the lease of another node', async () => {
  expect(await post(group.address(2), join(2))).toMatchObject({ answer: { kind: 'lease' } })
  const failed = reportPath(digest, {
    kind: 'failed',
    node: flightPeer(group, 2),
    haveBytes: 0,
    size,
    load,
    busy: undefined,
  })
  expect(await post(strangerIp, failed)).toMatchObject({ status: 400 })
  expect(await post(group.address(3), join(3))).toMatchObject({ answer: { kind: 'wait' } })
})
