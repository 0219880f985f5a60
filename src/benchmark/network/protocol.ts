/**
 * What the two ends of `benchmark network` say to each other: HTTP/1.1 on one TCP port, where a connection may be turned
 * into a plain stream by Upgrade, and datagrams on the UDP port of the same number. An agent never connects anywhere,
 * sends nothing that was not asked for, and every size and time here is a bound.
 */

export const protocolName = 'spegel-ts-network/1'
export const defaultPort = 5010

/** `GET`: what the agent is, and the CPU time that it took so far. */
export const agentPath = '/agent'
/** `GET /bytes/N`: a body of N bytes. */
export const bytesPath = '/bytes/'
/** Upgrade: what comes is sent back. */
export const echoPath = '/streams/echo'
/** Upgrade: bytes as fast as they are taken. */
export const sourcePath = '/streams/source'
/** Upgrade: values are set and got, as in a key-value store. */
export const valuesPath = '/streams/values'
/** Upgrade: the agent sends a token of `tokenBytes`; datagrams that carry it are sent back while the stream is open. */
export const datagramsPath = '/streams/datagrams'

/** Open connections to an agent. Above: a new one is closed at once. */
export const connectionsMax = 1024
/** A body that is asked for. Above: 400. */
export const bodyBytesMax = 1024 ** 3
/** A stream is ended after this time, and when nothing passed for `idleTimeoutMs`. */
export const streamLifeMaxMs = 15 * 60_000
export const idleTimeoutMs = 30_000

/** Of a stream of values: an operation (one byte) and a key (two bytes), then the value if it is set. */
export const valueBytes = 1000
export const valueKeys = 1024
export const getOperation = 0x47
export const setOperation = 0x53
export const requestHeadBytes = 3
/** The answer to a set: `+OK\r\n`, as Redis says it. */
export const setAnswer = Buffer.from('+OK\r\n')

/**
 * Of a datagram: the token, a type, a sequence number (4 bytes), then anything. Answers are as long as what they answer
 * and of another type, so neither can two agents be made to answer each other, nor can one be used to flood somebody.
 */
export const tokenBytes = 16
export const requestType = 1
export const answerType = 2
export const datagramHeadBytes = tokenBytes + 5
/** Fits into the smallest frames that are in use, with room for a tunnel. */
export const datagramBytesMax = 1200
