/**
 * Window updates of yamux. @libp2p/yamux 8.0 answers each data frame with one: a frame to encrypt, a packet and a wake-up
 * of the other side, for each question and each answer of the DHT. As in Go's yamux, the window is opened again when half
 * of it is used, which no reader can tell from the outside.
 */
import { StreamState, YamuxStream } from '@libp2p/yamux/stream'

/** Parts of YamuxStream that are private in its types. Checked when the first stream wants to send an update. */
interface Window {
  recvWindow: number
  recvWindowCapacity: number
}

let isRare = false

/** For all streams of the process. */
export function sendWindowUpdatesRarely(): void {
  if (isRare) return
  isRare = true
  // eslint-disable-next-line typescript/unbound-method -- called with its stream below
  const send = YamuxStream.prototype.sendWindowUpdate
  YamuxStream.prototype.sendWindowUpdate = function sendAtHalf(this: YamuxStream): void {
    const { recvWindow, recvWindowCapacity } = this as unknown as Window
    if (typeof recvWindow !== 'number' || typeof recvWindowCapacity !== 'number') {
      throw new TypeError('this version of @libp2p/yamux is laid out differently: see Window')
    }
    // In the other states the update opens the stream or acknowledges that.
    const mayWait = this.state === StreamState.Established || this.state === StreamState.SYNSent
    if (mayWait && recvWindowCapacity > recvWindow / 2) return
    send.call(this)
  }
}
