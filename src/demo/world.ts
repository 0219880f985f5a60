/** PORT World: what the demo's story is played in. On loopback without root, or with real containerd. */

export interface PullResult {
  /** Bytes that came from the upstream registry, and from other nodes. */
  upstreamBytes: number
  peerBytes: number
  /** Bodies that went on at another peer. */
  resumes: number
  elapsedMs: number
}

export interface World {
  /** One line about what this is. */
  readonly description: string
  readonly image: string
  /** Compressed bytes of the image. */
  readonly imageBytes: number
  /** Starts node 1, 2, … (each once). */
  startNode(number: number): Promise<void>
  /**
   * Pulls the image on a node. Rejects when the pull fails. `midway` is called once, when part of the last and largest
   * blobs is there, and the pull is slow enough to get there while they are under way.
   */
  pull(number: number, midway?: () => Promise<void>): Promise<PullResult>
  /** Several nodes at once; left out where downloads under way cannot be shared, without containerd. */
  pullTogether?(numbers: readonly number[]): Promise<PullResult>
  /** The nodes that send content to others at the moment. */
  servingNodes(): Promise<number[]>
  /** SIGKILL to the node's daemon. */
  killDaemon(number: number): Promise<void>
  stopUpstream(): Promise<void>
  close(): Promise<void>
}
