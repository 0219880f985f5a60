package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mh "github.com/multiformats/go-multihash"
)

// Spegel's settings of the DHT.
const (
	protocolPrefix    = "/spegel"
	replication       = 20
	advertiseInterval = 15 * time.Minute
	advertiseDelay    = 2 * time.Minute
	recordValidity    = advertiseInterval + 2*advertiseDelay
	addressValidity   = time.Hour
	onlineCheck       = 30 * time.Second
	providersWanted   = 3
)

type swarm struct {
	host     host.Host
	dht      *dht.IpfsDHT
	provider *provider.SweepingProvider
}

// joinSwarm starts listening; others are found by the bootstrap.
func joinSwarm(dataDir string) (*swarm, error) {
	key, err := identity(dataDir)
	if err != nil {
		return nil, err
	}
	host, err := libp2p.New(
		libp2p.Identity(key),
		// Spegel tells its module's path, the default. Ours would look like a node of the other kind.
		libp2p.UserAgent("github.com/spegel-org/spegel"),
		libp2p.ListenAddrStrings("/ip6/::/tcp/"+routerPort, "/ip4/0.0.0.0/tcp/"+routerPort),
		// Without QUIC, as Spegel since 0.7.2. Security stays the default: tls before noise.
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.AddrsFactory(func(addresses []ma.Multiaddr) []ma.Multiaddr {
			return ma.FilterAddrs(addresses, func(address ma.Multiaddr) bool { return !manet.IsIPLoopback(address) })
		}),
	)
	if err != nil {
		return nil, err
	}
	table, err := dht.New(host,
		dht.Mode(dht.ModeServer),
		dht.ProtocolPrefix(protocolPrefix),
		dht.BucketSize(replication),
		dht.ProviderManagerOpts(records.ProvideValidity(recordValidity), records.ProviderAddrTTL(addressValidity)),
	)
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	self := peer.AddrInfo{ID: host.ID()}
	sweeping, err := provider.New(
		provider.WithHost(host),
		provider.WithRouter(table),
		provider.WithMessageSender(table.MessageSender()),
		provider.WithSelfAddrs(table.FilteredAddrs),
		provider.WithAddLocalRecord(func(ctx context.Context, key mh.Multihash) error {
			return table.ProviderStore().AddProvider(ctx, key, self)
		}),
		provider.WithReplicationFactor(replication),
		provider.WithReprovideInterval(advertiseInterval),
		provider.WithMaxReprovideDelay(advertiseDelay),
		provider.WithOfflineDelay(0),
		provider.WithConnectivityCheckOnlineInterval(onlineCheck),
	)
	if err != nil {
		return nil, errors.Join(err, table.Close(), host.Close())
	}
	return &swarm{host: host, dht: table, provider: sweeping}, nil
}

func (s *swarm) close() {
	_ = s.provider.Close()
	_ = s.dht.Close()
	_ = s.host.Close()
}

func (s *swarm) connected() bool {
	return s.dht.RoutingTable().Size() > 0
}

// advertise announces keys now and until the end; those that are announced already are left as they are.
func (s *swarm) advertise(ctx context.Context, keys []string) error {
	var hashes []mh.Multihash
	for _, key := range keys {
		id, err := contentID(key)
		if err != nil {
			return err
		}
		// Known here at once, also while nobody is there to be told.
		if err := s.dht.ProviderStore().AddProvider(ctx, id.Hash(), peer.AddrInfo{ID: s.host.ID()}); err != nil {
			return err
		}
		hashes = append(hashes, id.Hash())
	}
	return s.provider.StartProviding(false, hashes...)
}

// providers yields the addresses of nodes other than this one that have the key, as they are found.
func (s *swarm) providers(ctx context.Context, key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		id, err := contentID(key)
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for found := range s.dht.FindProvidersAsync(ctx, id, providersWanted) {
			if found.ID == s.host.ID() {
				continue
			}
			for _, address := range found.Addrs {
				if ip, err := manet.ToIP(address); err == nil && !yield(ip.String()) {
					return
				}
			}
		}
	}
}

// records counts the keys that a node has announced to this one.
func (s *swarm) records(ctx context.Context, node string, keys []string) (int, error) {
	count := 0
	for _, key := range keys {
		id, err := contentID(key)
		if err != nil {
			return 0, err
		}
		holders, err := s.dht.ProviderStore().GetProviders(ctx, id.Hash())
		if err != nil {
			return 0, err
		}
		if slices.ContainsFunc(holders, func(holder peer.AddrInfo) bool { return holder.ID.String() == node }) {
			count++
		}
	}
	return count, nil
}

// contentID is the name of a key in the DHT.
func contentID(key string) (cid.Cid, error) {
	hash, err := mh.Sum([]byte(key), mh.SHA2_256, -1)
	if err != nil {
		return cid.Undef, err
	}
	return cid.NewCidV1(cid.Raw, hash), nil
}

// identity reads the node's key, PKCS#8 in PEM, or makes one. Without a folder it is new at each start.
func identity(dataDir string) (crypto.PrivKey, error) {
	if dataDir == "" {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		return key, err
	}
	path := filepath.Join(dataDir, "private.key")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = writeIdentity(dataDir, path)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an Ed25519 key", path)
	}
	return crypto.UnmarshalEd25519PrivateKey(key)
}

func writeIdentity(dataDir, path string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes})
	return text, os.WriteFile(path, text, 0o600)
}
