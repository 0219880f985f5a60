/**
 * Every bound and every wait of the daemon, with its unit, its reason, and what happens when it is reached.
 * What an operator may want to change is an option instead (see src/cli/options.ts).
 */

const MiB = 1024 * 1024

// --- Requests from containerd and from peers -------------------------------------------------------------------

/** Request line and headers. containerd sends under 1 KiB. Above: Node answers 431 and closes. */
export const requestHeaderBytesMax = 16 * 1024

/** From the first byte of a request to the end of its headers; ends slow-loris connections with 408 and close. */
export const requestHeadersTimeoutMs = 10_000

/** Idle keep-alive. containerd drops idle connections after 30 s: ours must live longer, or requests race the close. */
export const keepAliveTimeoutMs = 75_000

/**
 * Open connections to the registry port: in total, from one address, and reserved for this node. Full: the client with the most
 * connections loses its oldest idle one. A node keeps about one connection to a peer for each of its running downloads there.
 */
export const registryConnectionsMax = 2048
export const registryConnectionsPerAddressMax = 256
export const registryConnectionsReserved = 256

/** The same for the metrics port: Prometheus and probes. */
export const metricsConnectionsMax = 64
export const metricsConnectionsPerAddressMax = 32
export const metricsConnectionsReserved = 16

/** Requests of one connection that wait for the one before. No client of ours sends ahead. Above: it is closed. */
export const pipelinedRequestsMax = 16

/** A client that takes no byte for this long is gone (containerd itself gives up after 5 minutes). */
export const clientStallTimeoutMs = 300_000
/** The same for a client at another address than this node's. Our own nodes give up sooner. */
export const peerStallTimeoutMs = 30_000

/** Time for a client to close its side after our FIN, before the socket is destroyed. */
export const finLingerMs = 5_000

/** Headers wait so long for the first chunk, to leave in one packet with it. A chunk that is on disk comes sooner. */
export const headersAloneMs = 5

// --- Bodies ----------------------------------------------------------------------------------------------------

/**
 * containerd refuses larger manifests. Above: the manifest counts as missing. Parsing one takes up to 25 times its size in
 * memory and a second of CPU, so the daemon parses one manifest of its store at a time.
 */
export const manifestBytesMax = 4 * MiB
/** Digests whose media type is known, or that are known to be no manifest. Full: the least recent is forgotten. */
export const manifestTypesRememberedMax = 4_096
/** With filters: digests that containerd requested here. Full: blobs that arrive are not passed on before they are complete. */
export const namedDigestsRememberedMax = 4_096
/** Manifests that are being received from peers, together. Above: that peer counts as failed. */
export const manifestReadsBytesMax = 16 * MiB

/**
 * Two buffers per stream. 1 MiB costs 0.47 CPU s/GiB, 256 KiB 0.65; but small requests wait behind large chunks:
 * p50 of a HEAD beside 16 downloads 7.9 ms against 2.8 ms. So many streams move small chunks for a while after a small
 * request: 4,096 are 1 GiB, about a second of a 10 Gbit link.
 */
export const chunkBytesLarge = MiB
export const chunkBytesSmall = 256 * 1024
export const carefulChunks = 4_096
/** Up to this many streams count as few: they always move large chunks. */
export const streamsFew = 4
/** So many streams have large buffers, 32 MiB together; further ones small ones. */
export const streamsWithLargeBuffers = 16
/**
 * Requests for content under way, from the store or passed on: 16 × 2 × 1 MiB + 112 × 2 × 256 KiB = 88 MiB of buffers. Above: 503, so that
 * containerd goes to its next host, and a peer to another.
 */
export const streamsMax = 128
/** Reserved for this node: a node that serves many peers must not send its own containerd upstream. */
export const streamsReserved = 16
/** Requests for content from one address other than this node's. Above: 503, and the peer requests the blob elsewhere. */
export const streamsPerAddressMax = 32
/** Buffers of each size kept for reuse; the others are left to the garbage collector. */
export const buffersKeptMax = 32

/** Time for a part of the daemon to end. Then the next one has its turn: the process exits anyway. */
export const closerMs = 3_000

/** How long a command may take to stop after a signal. Then the process ends all the same. */
export const closeGraceMs = 3_000
/** The same for the daemon, after the grace time of its transfers: less than the 10 s that docs/image.md asks for. */
export const daemonCloseGraceMs = 8_000
/** The same for measurements, which end processes, network namespaces and pods. */
export const measurementGraceMs = 60_000
/** A process that was stopped waits this long for the reader of its output; without a signal, until it is read. */
export const exitOutputMs = 1_000
/** Log lines that wait for a reader of standard error. Above: lines are dropped and counted. */
export const logBufferBytesMax = 1024 * 1024

/** At rest: nothing was asked for this long, and none of the bodies is under way. Then memory is given back. */
export const idleBeforeCollectionMs = 5_000
/** If there is so much more of it than after the last time. It takes 0.2 s, in which nobody is answered. */
export const idleGrowthBytes = 16 * MiB

/** How often the lag of the event loop is measured. Each time wakes the process: 20 a second cost 0.1 % of a core. */
export const eventLoopSampleMs = 50

/** Registries counted by name in the metrics; clients may name any. Full: further ones are counted as "other". */
export const registryLabelsMax = 100

// --- Peers -----------------------------------------------------------------------------------------------------

/** TCP connect to a peer. Within a cluster it takes a millisecond; an unplugged node costs this much once. */
export const peerConnectTimeoutMs = 500
/**
 * No answer on a connection that lay idle: is anybody there? A new connection tells. With the time that it may take this
 * leaves half of the time to find a peer, and most of a coordinator's, for others.
 */
export const peerDoubtMs = 250
/** A peer's next address is tried this much later; the first connection wins. */
export const peerAddressStaggerMs = 50

/**
 * Less than this within the stall timeout, while bytes are waited for: go on at the next peer. More than nothing, or a
 * peer that drips could hold a pull for ever.
 */
export const peerStallBytesMin = 10 * 1024
/** And at least so long where the peer is still receiving it: in steps of 1 MiB, one each 10 s at 0.1 MiB/s. */
export const arrivingStallMs = 20_000

/**
 * A body that comes more slowly than it could be read is read in pieces of about this size, waited for at most this long.
 * At 1 Gbit that is 4 ms; the kernel's buffer holds more. Above 4 Gbit nothing is waited for. Where bytes lay there after
 * each wait, and not less than before, the link is the limit and the wait gets longer: with four layers at once over 100
 * Mbit it brings 150 KiB then, and not 40. After bytes that came so late the source has no more, and each wait is a delay
 * for those behind us. Less than `Min`, as towards the end of a body, is not waited for.
 */
export const peerGatherBytes = 512 * 1024
export const peerGatherBytesMin = 64 * 1024
export const peerGatherMs = 12
export const peerGatherMsMax = 48
export const peerGatherLateMs = 3

/**
 * A peer that breaks off after at least this much is asked for the rest when nobody else has it. Below, once more and no
 * further: a peer that gave 1,000 bytes each time held up a 4 MiB blob for 100 s.
 */
export const peerWorthAskingBytes = 128 * 1024
/**
 * After a body that no peer could finish: 404 to the request that begins where it ended, so that containerd, which
 * resumes at the first host of its list, goes on to upstream. It comes back at once, on a busy machine later.
 */
export const givenUpMs = 10_000
export const givenUpRememberedMax = 1_024

/** To find a peer that has it, before our headers: GET of a blob, and the short questions. After it: 404. */
export const blobFindBudgetMs = 2_000
export const manifestFindBudgetMs = 1_000
/** A peer's manifest, a few KiB, from its head to its last byte. Longer: next peer. */
export const manifestReadTimeoutMs = 3_000
/**
 * Once a holder is connected and asked, this much more for its answer: on a node whose processors are busy with seven
 * pulls at once a good answer took over a second, and waiting for it beats going upstream. containerd itself waits 30 s.
 */
export const holderPatienceMs = 3_000
/** Answers waited for at once; a further peer is asked when an answer takes longer than nearly all lately did. */
export const hedgesMax = 3
export const hedgeDelayMinMs = 20
export const hedgeDelayMaxMs = 500
/** Questions with a limit of load before the least busy of them is asked without: each costs a round trip. */
export const loadTriesMax = 4

/** A holder that refuses for its load even without a limit is asked again about so much later. */
export const busyPauseMs = 200
/** In a long body: who failed before is worth another try when all others have failed, after this time. */
export const forgiveFailureMs = 5_000

/** A peer that failed receives requests only when no other peer has the content. */
export const peerAvoidMs = 30_000
/**
 * After wrong bytes: the digest is not mirrored on this node, its holders are avoided, and the relays receive no request for
 * it. So at most one pull per digest, node and this time fails, however many peers send wrong bytes.
 */
export const wrongBytesMs = 10 * 60_000
/**
 * A blob that was delivered whole and is not in the store by then was wrong, unless it is still a download: containerd writes
 * it to the disk before it looks, one after the other, which takes a slow disk a minute for gigabytes.
 */
export const deliveryCheckMs = 30_000
export const deliveryCommitMs = 5 * 60_000
export const slowDiskBytesPerSecond = 16 * MiB
/** Peers, and blobs under way or just delivered, that are remembered. Full: the least recent is forgotten. */
export const peersRememberedMax = 4_096
export const deliveriesRememberedMax = 1_024

/** Pieces of one blob that are remembered; containerd's parallel fetch makes a few. Above: nobody is judged by it. */
export const deliveryRangesMax = 256

/** Addresses of one peer that are tried for one request. Above: further ones are ignored. */
export const peerAddressesTriedMax = 16

/** Connections to peers in all. Above: the question fails as if the peer could not be reached. */
export const peerConnectionsMax = 1_024
/** Idle connections kept. Full: closed instead of kept. */
export const peerIdleConnectionsMax = 256
export const peerIdleConnectionMs = 30_000

/** Body of a 401 response, which is read so that the connection can be used again. Above: the connection is closed. */
export const refusalBytesMax = 4 * 1024
/** Size of the key that proves knowledge of the shared password. */
export const proofKeyBytes = 32
/** scrypt, once per process: each guess of a password costs 32 MiB and about 0.15 s of CPU. */
export const proofKeyCost = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * MiB }

/** Connections to one peer whose answers are out of the ordinary. Above: questions wait within their budget. */
export const libraryConnectionsMax = 16

/** Response headers of a peer. */
export const peerHeaderBytesMax = 16 * 1024

// --- Router ----------------------------------------------------------------------------------------------------

/** Peers in a bucket, and nodes that hold a record (k of Kademlia; Go's default, so both count alike). */
export const replication = 20

/** Provider records: as Spegel, 15 minutes plus twice its greatest delay of 2 minutes. */
export const recordValidityMs = 19 * 60_000
export const reprovideIntervalMs = 15 * 60_000

/** Memory of one provider record of another node, the bytes of its key apart (measured with one provider per key). */
export const recordBytes = 270
/**
 * Records of other nodes: 220,000. In a cluster of 1,000 nodes with 1,000 keys each, a node holds 20,000 on average. One peer
 * may hold 55,000 records, one remote address 110,000: SNAT puts several members behind one address. Full: the oldest record of
 * the largest holder makes room. The largest holder itself replaces 100 records per second.
 */
export const recordShares = {
  totalMax: 64 * MiB,
  addressMax: 32 * MiB,
  peerMax: 16 * MiB,
  peersPerAddressMax: 256,
  /** A peer and its address, records apart. */
  holderSize: 1_024,
  replacementMs: 10,
} as const
/** A node that has joined is handed older records by their owners within about a second; on a busy machine later. */
export const recordsCompleteAfterMs = 30_000
/** Bytes of a key's multihash: sha2-256 has 34, the longest of sha2 66, a peer id up to 42. Longer: the stream is ended. */
export const recordKeyBytesMax = 66
/** Providers kept per key. Full: the oldest record of the remote address with the most records of the key makes room. */
export const providersPerKeyMax = 100
/** Providers of one key from one remote address. Full: its oldest record makes room. */
export const providersPerKeyAddressMax = 25

/** Found providers, and the knowledge that there are none. A miss must not hide a node that just got the content. */
export const lookupCacheMs = 5_000
export const lookupMissCacheMs = 200
export const lookupCacheEntriesMax = 10_000

/** One question to one peer, and questions of a look-up that run at once (alpha). */
export const rpcTimeoutMs = 1_000
export const rpcConcurrency = 4
/** A look-up in all. */
export const lookupTimeoutMs = 2_000
/** A message of the DHT: 20 peers with a few addresses each are 4 KiB. Longer: the stream is reset, both ways. */
export const dhtMessageBytesMax = 64 * 1024
/** Addresses of one peer that are told to others, tried, and learned at a time: both families, a few networks. */
export const addressesPerPeerMax = 8
/** What is kept of one peer (addresses, protocols). Full: further changes are not taken. 8 addresses are under 1 KiB. */
export const peerRecordBytesMax = 16 * 1024
/**
 * libp2p's records of peers (addresses, protocols): 16,000 records of 1 KiB, 4,000 from one remote address. Full: the oldest record
 * of the address with the most records is dropped.
 */
export const peerRecordShares = {
  totalMax: 16 * MiB,
  addressMax: 4 * MiB,
  peerMax: 64 * 1024,
  peersPerAddressMax: 4_096,
  holderSize: 512,
  replacementMs: 0,
} as const
/** Our end closes an idle stream before Go (60 s) or we on the other side (65 s) reset it. */
export const dhtStreamIdleMs = 30_000
export const dhtServerStreamIdleMs = 65_000
/** Streams of the DHT to and from one peer (default 32): a boot storm's announcements and look-ups have one each. */
export const dhtStreamsPerPeerMax = 256
/** Peers whose addresses are kept ready. Above: the one used least recently is read again. */
export const addressBookEntriesMax = 4_096
/**
 * An address at which a peer has proven its identity counts for this long after the end of the connection. It covers restarts of
 * the network between nodes.
 */
export const addressProofMs = 3_600_000
/** A dial for a proof. Within a cluster it takes some milliseconds. */
export const addressProofTimeoutMs = 1_000
/** A dial that did not prove the address is not repeated for this long. */
export const addressProofRetryMs = 5_000
/** Such dials at once. Above: the address is not used. */
export const addressProofDialsMax = 32
/** A lookup whose own records name no proven address waits this long for a proof before it requests records of others. */
export const addressProofPatienceMs = 250
/** Addresses that a peer repeats are written again this often; they expire after a day. */
export const addressRefreshMs = 3_600_000
/** Questions under way on one stream. Above: the question fails, and the look-up goes on elsewhere. */
export const rpcPerStreamMax = 256
/** A peer that did not answer is not asked for this long; who then is silent again, or has no connection, for longer. */
export const suspectPeerMs = 2_000
export const deadPeerMs = 30_000

/** Announcements per write, so that receivers are not flooded; then the stream's back-pressure decides. */
export const provideBatchMessages = 50
export const provideConcurrency = 8
export const provideTimeoutMs = 30_000
/** Changes are gathered this long, so that the layers of an image go out together. */
export const provideDelayMs = 20
/**
 * With flights blobs are gathered this long, or until their image's tag goes out, which is the end of the pull: meanwhile
 * the coordinator of each knows who has it. An announcement is 20 messages: one for each blob as it came was a fifth of
 * the CPU of a cold pull of 10 MB.
 */
export const provideBlobsFlightsMs = 5_000

/**
 * Connections of the swarm. Full: the oldest connection of the largest holder, by remote address and then by peer, is closed for
 * a new one. SNAT puts several members behind one address.
 */
export const swarmConnectionsMax = 1_000
export const swarmConnectionShares = {
  totalMax: swarmConnectionsMax,
  addressMax: 256,
  peerMax: 16,
  peersPerAddressMax: 256,
  holderSize: 0,
  replacementMs: 0,
} as const
/**
 * Inbound connections that have not proven an identity yet. Full: the oldest one of the address with the most is closed. A
 * handshake takes some milliseconds, on a busy machine more, and all nodes of a cluster may start at once.
 */
export const pendingHandshakeShares = {
  totalMax: 512,
  addressMax: 64,
  peerMax: 64,
  peersPerAddressMax: 1,
  holderSize: 0,
  replacementMs: 0,
} as const
/** libp2p has bounds of its own, which refuse new connections. They must not be reached before ours close old ones. */
export const libp2pConnectionsMax = 2 * swarmConnectionsMax
export const libp2pPendingHandshakesMax = 4 * pendingHandshakeShares.totalMax
/** From an inbound TCP connection to a proven identity. Nodes of ours give up a dial after 2 s. */
export const handshakeTimeoutMs = 5_000

/** Asking around for more peers: this soon after joining, doubling to the last. A round costs three messages. */
export const membershipFirstMs = 300
export const membershipLastMs = 60_000
export const membershipRoundTimeoutMs = 10_000
/** New peers dialled in a round; the next round takes the others. */
export const membershipDialsMax = 32

export const bootstrapFirstRetryMs = 100
export const bootstrapLastRetryMs = 10_000
/** One round of asking the bootstrap source and dialling. */
export const bootstrapRoundTimeoutMs = 10_000
/** Once connected: look again, so that a swarm that was split grows together. */
export const bootstrapRefreshMs = 60_000
/** First peers dialled in a round. */
export const bootstrapPeersMax = 8
/** Bootstrap entries that cannot be dialled are reported once each. Full: the oldest may be reported again. */
export const undialableEntriesRememberedMax = 256
/** Of a bootstrap entry, in memory and in the log. Longer: cut off. */
export const bootstrapEntryCharactersMax = 200
/** Of a server that is asked seldom: a bootstrap source, the Kubernetes API. */
export const answerBytesMax = MiB
/** The list of addresses that the bootstrap source names is read again when it is older, so that new nodes are found. */
export const namedAddressesMs = 10_000
/** Limit of one read of that list, because a pull waits for it. Above: the last list is used. */
export const namedAddressesTimeoutMs = 1_000
/** EndpointSlices to ask Kubernetes for: 100 addresses in each, 50 KiB. All nodes get the same, so a split heals. */
export const bootstrapSlicesMax = 4

/**
 * Two connections to one peer id: whether they lead to two processes is checked this soon, so that connections of a restart
 * are over, and again this often while one of them does not answer, or the clone is still there.
 */
export const cloneCheckDelayMs = 500
export const cloneRecheckMs = 60_000
/** Connections to one peer id that are compared, the latest ones. */
export const cloneConnectionsMax = 8
/** One request about identities, in all, and such streams of one connection. Above: the stream is reset. */
export const identityRequestTimeoutMs = 5_000
export const identityStreamsPerPeerMax = 8
/** A clone replaces its identity this long after it was told, so that the other one can still be told. */
export const identityReplaceDelayMs = 1_000
/** And at most this often. */
export const identityReplaceIntervalMs = 3_600_000
/** `/readyz` warns of an identity that is kept for this long after the last report. */
export const cloneWarningMs = 5 * cloneRecheckMs
/** With its new identity, the router is started again this often until it succeeds. */
export const routerRestartMs = 2_000

// --- Store -----------------------------------------------------------------------------------------------------

/** A call to containerd. It answers within a millisecond; a hung one must not hang a request. */
export const containerdCallTimeoutMs = 2_000
export const containerdListTimeoutMs = 60_000
export const containerdReconnectFirstMs = 100
export const containerdReconnectLastMs = 1_000

/** Events can be lost (queue overflow): the folder is read again this often. 10,000 entries cost about 10 ms. */
export const rescanIntervalMs = 60_000
/** Blobs of which is remembered when they were last seen in the folder. Full: the least recent is forgotten. */
export const sightingsMax = 4_096
/** Manifests of an OCI layout whose descriptors are read, and blobs whose size they give. Above: not compared. */
export const layoutManifestsMax = 10_000
export const declaredSizesMax = 500_000
/** Blobs of a wrong size that were reported. Full: the oldest may be reported again. */
export const wrongSizesRememberedMax = 4_096
/** As long as the folder is not there. */
export const rescanMissingMs = 2_000

/**
 * Downloads of containerd that are followed: one descriptor each. A node that pulls ten images at once has 300, since
 * from 2.1 on layers that wait for their turn count too. Above: not followed until others have ended.
 */
export const ingestsMax = 512
/** Of these with a watch of their own; the kernel gives a user 8,192 or more. Above: their growth is seen by the re-scan. */
export const ingestWatchesMax = 128
/** A download that grows is looked at this often. Its last bytes are not late for it: the end is told by an event. */
export const ingestPaceMs = 30
/** And this often while nobody is fed from it, as on half of the nodes: a look wakes the program, 0.2 CPU ms each. */
export const ingestUnreadPaceMs = 200
/** One that has not grown for this long is left to the kernel's events. */
export const ingestRestMs = 300
/** Re-scan while something is downloaded: one stat per download, and one read of a folder that is nearly empty. */
export const ingestRescanMs = 1_000
/**
 * Bytes that containerd was handed and that are not in its file yet are kept for those who are fed from here: twice what
 * containerd gathers before it writes. Buffers for 8 downloads, 16 MiB in all. No buffer left, or containerd further
 * behind: they wait for the file.
 */
export const aheadBytes = 2 * MiB
export const aheadBuffersMax = 8
/** Told in such steps: each costs a write here and a read at who is fed. */
export const aheadStepBytes = 256 * 1024
/** Downloads that have ended are remembered for who asks how. Full: the least recent is forgotten. */
export const endedTransfersMax = 256

/**
 * containerd records a blob a few ms after its file is in place: when to ask whether it is ours. From 2.1 on an event
 * says so, nearly always before the first of these.
 */
export const confirmDelaysMs: readonly number[] = [20, 20, 30, 100, 300, 1_000, 3_000]
export const confirmConcurrency = 8
/** From the event of a removal to when the garbage collector is done, which takes less on all but the fullest nodes. */
export const collectionDelayMs = 1_000

// --- Flights ---------------------------------------------------------------------------------------------------

/** Smaller blobs appear at once at their end (containerd writes 1 MiB steps): no tree, all take them from who has them. */
export const flightSmallBytes = MiB
/** Up to this size a tree's depth costs more than an overloaded source: three followers each, without measuring. */
export const flightTreeBytes = 16 * MiB
/**
 * Followers of one source at most, also of one that has the blob complete, where nothing can be measured: it always gives as
 * fast as its link allows. Too bold costs at most this factor. For holders two are better where links are the limit (one
 * holder, seven nodes, 4 × 25 MiB, 200 Mbit: 8.5 s, and 9.4 with four), four where upstream is (cold batch: 1.08, and 1.10
 * times one copy with two; 10 rounds of each).
 */
export const flightSlotsMax = 4
/**
 * The first follower of a flight measures for all that come with it. It takes two of the 1 MiB steps in which a transfer
 * grows, 1 s at 16 Mbit for a layer; slower than that, a chain costs less than the wait.
 */
export const flightTrialMs = 1_500
/**
 * Leases by 404 are better all at one node of an image: it gives its slots back, and nodes that wait for each other's
 * leaders lock each other. Who is fed with another blob of the image leaves a lease to its leader for this long.
 */
export const flightYieldMs = 300
/** Who led or was fed with a blob of a repository does so for its other blobs, as long as they come within this time. */
export const flightImageMs = 30_000
/** Repositories of which that is known. */
export const flightImagesMax = 256
/** A source that did not deliver is not given to the same follower again for this long. */
export const flightFailedSourceMs = 10_000
/** After a lease that failed without a byte the next one waits: 1st, 2nd, … failure in a row. */
export const flightBackoffMs: readonly number[] = [0, 1_000, 2_000, 4_000, 8_000, 15_000]
/**
 * No progress anywhere while some wait: further leases after this long each; the first stays valid. Progress is seen in
 * steps of 1 MiB: with 10 s, an upstream of 0.1 MiB/s was asked for 2.6 copies, which share what it gives.
 */
export const flightFurtherLeasesMs: readonly number[] = [15_000, 20_000, 40_000]
/** Who was given a lease is told so again for this long, whatever else there is: it may have ended a body for it. */
export const flightLeaseFreshMs = 10_000
/**
 * A node with a lease that has said nothing for this long, while others wait for it, is asked whether it is there: of who dies
 * before it has a byte no follower can tell (a mirror killed in that moment: seven nodes waited for 15 s).
 */
export const flightQuietLeaderMs = 2_000
/** Leases of one blob at the same time. */
export const flightLeasesMax = 8
/** Somebody has more but gives nothing to anyone, and nobody fetches upstream: the next may. */
export const flightSilentMs = 2_000
/**
 * Of who has it complete, after it did not deliver to one: as long as others may be fed by it and have not told of that. After
 * it the next may go upstream though it is there: frozen it fails one after the other.
 */
export const flightDoubtMs = 6_000
/** A follower of which nothing was heard for this long no longer takes room at its source. Too early costs little. */
export const flightFollowerSilentMs = 30_000
/** One that has not told of a first MiB is given up sooner: it may be gone, and the only one that its source takes. */
export const flightFirstBytesMs = 5_000
/** What a node said of its load, and a download that grew, count for this long. */
export const flightLoadMs = 10_000
/**
 * Who receives for this share of the time may be limited by the link of its source: two that share one measured 0.4 to 1.
 * If it has fallen so many bytes behind, and others of that source say the same, they share a full link. Who is fed as fast as
 * its source is less than 2 MiB behind; less than a second at 100 Mbit is not worth a new connection.
 */
export const flightFullShare = 0.5
export const flightBehindBytes = 8 * MiB
/** It asks each so often whether to leave that link, from so long after its source began. */
export const flightCrowdedAskMs = 2_000
/** For so long that it asked counts: two questions, and one that was lost. */
export const flightFullMs = 5_000
/**
 * Nobody else has more and room: it takes nothing for this long, less than what counts as silence to those that it feeds, and
 * asks so often meanwhile. At full speed the others get further ahead in that than the last of a chain is behind.
 */
export const flightPauseMs = 1_500
export const flightPauseTurns = 3
/** Of one source. Then it stays. */
export const flightPausesMax = 3
/** Of those that share a link one at a time leaves or pauses; the next is after this. */
export const flightReliefMs = 2_000
/** A flight of which nobody has said anything for this long is forgotten. */
export const flightForgetMs = 60_000
/** Blobs that this node coordinates. Full: the one that was quiet for longest is forgotten; its nodes join anew. */
export const flightsMax = 4_096
/** Nodes of one flight that somebody found gone. Full: the least recent one is believed again to have the blob. */
export const flightGoneMax = 64
/** Nodes of one flight. Above: a node is told to go upstream. */
export const flightMembersMax = 10_000
/** Nodes of all flights, 64 MiB. Full: the flight that was quiet for longest is forgotten; its nodes join again. */
export const flightNodesMax = 16_384

/** Questions of one node about one blob that wait at a time: two pulls, a parallel fetch, messages that came twice. */
export const flightQuestionsMax = 8
/** How long one question to a coordinator may wait for a decision; then it is asked anew. */
export const flightJoinWaitMs = 2_000
/** A question that was answered with nothing new is not asked again sooner. */
export const flightAskAgainMs = 200
/** A coordinator that is not there: the next of three is asked, and it is remembered as dead for a while. */
export const flightCoordinatorsMax = 3
export const flightCoordinatorTimeoutMs = 1_000
/**
 * After it was silent once, twice, … in a row. Short at first: whoever still asks it, or was not the one to wait for it, has
 * another coordinator meanwhile, which costs one more upstream fetch of each blob. On a machine that stood still for a second
 * all seem dead.
 */
export const flightCoordinatorDeadMs: readonly number[] = [2_000, 5_000, 10_000, 30_000]
/** One that answered within this time is waited for; another is asked first for an answer at once. */
export const flightCoordinatorKnownMs = 10_000
/** An answer of a coordinator: a peer with a few addresses. */
export const flightMessageBytesMax = 4 * 1024
/** A lease holder whose upstream broke off is sent there again after this long: restarts take about that. */
export const flightResumeHoldMs = 3_500
/** In mid-blob, or after a lease that failed, while upstream refuses connections: looked at this often, this long. */
export const flightRefusedLookMs = 500
export const flightRefusedHoldMs = 20_000
/** For an answer to that. */
export const upstreamConnectTimeoutMs = 1_000
/** Nothing moves: headers are sent then, with the size of the blob, and the body waits. */
export const flightHeadersMs = 2_000
/** Of that, to find a node that has the blob: a holder may be frozen. */
export const flightHoldersMs = 1_500
/** A small blob is waited for this long; duplicates of it are cheap. */
export const flightSmallWaitMs = 1_000
/** Without a byte for our containerd: end by FIN. It notices a stall itself after 5 minutes, and fails the pull. */
export const flightBodyPatienceMs = 120_000
/** A source that gave nothing for this long: the coordinator is asked whether somebody else has more. */
export const flightStallMs = 2_000
/**
 * And it is asked whether it is there: no answer for this long, and it counts as gone. What it led may be led by another
 * then. A frozen or unplugged leader cost everybody 10 s.
 */
export const flightAliveMs = 2_000
/**
 * In mid-blob a source may be named for bytes that its containerd was handed but has not written, up to 1 MiB: asked again for
 * this long when it says that it has not got there.
 */
export const flightNotYetMs = 2_000
/** Nothing for this long, though it is there, and nobody has more: it is left, and the next decision may be a lease. */
export const flightDropSourceMs = 15_000
/** How busy a follower is: over so many bytes, told anew when it changed by so much. */
export const flightBusyWindowBytes = 4 * MiB
export const flightBusyChange = 0.2
/** So much without a pause is a full link. Less may be what the source had before: that comes as fast as the link allows. */
export const flightCatchUpBytes = 2 * MiB
/** Blobs in which this node takes part. Full: what it says of the least recent one is no longer reported. */
export const flightParticipationsMax = 1_024
/** A transfer is reported each so many parts of it, but no more often than this. */
export const flightReportParts = 8
export const flightReportBytesMin = 4 * MiB
/** And at least this often while it grows, well before a coordinator thinks that the flight is over, or a follower gone. */
export const flightReportMs = 5_000

// --- The node's configuration ----------------------------------------------------------------------------------

/**
 * Time between two checks of certs.d and of the mirror's address, plus up to the jitter. A problem is reported when two
 * checks in a row find it, so within a minute: twice the longest interval, and two probes.
 */
export const configurationCheckMs = 15_000
export const configurationCheckJitterMs = 5_000
/** An unchanged problem is logged again after this long. */
export const configurationLogAgainMs = 3_600_000
/** For a response to a probe of the mirror's own address; a daemon responds within milliseconds. */
export const mirrorProbeTimeoutMs = 3_000
/** Different addresses of the mirror probed per check. Further ones are not probed. */
export const mirrorProbesMax = 4
/** Directories of registries checked. Further ones are not checked. */
export const registryDirectoriesMax = 1_000
/** A larger hosts.toml is reported as unreadable. */
export const hostsTomlBytesMax = MiB
/** Problems listed in a log line and in /readyz. Further ones are only counted. */
export const configurationWarningsMax = 20
