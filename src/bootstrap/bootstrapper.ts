/** PORT Bootstrapper: who might be a first peer? */
export interface Bootstrapper {
  /** For logs and the readiness page: `dns peers.example`. */
  readonly name: string
  /**
   * Addresses to dial, as multiaddrs with or without the peer's id: `/ip4/10.0.0.1/tcp/5001[/p2p/12D3…]`. May
   * include this node itself, and entries that cannot be dialled: the caller skips and reports each of them. Rejects when
   * the source cannot be asked; an empty list means that nobody is known.
   */
  peers(signal: AbortSignal): Promise<string[]>
}

/** `/ip4/10.0.0.1/tcp/5001` for an IP address in text. */
export function toMultiaddr(ip: string, port: number): string {
  return `/${ip.includes(':') ? 'ip6' : 'ip4'}/${ip}/tcp/${port}`
}
