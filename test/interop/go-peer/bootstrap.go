package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	firstRetry      = 50 * time.Millisecond
	lastRetry       = 10 * time.Second
	refreshInterval = 30 * time.Minute
	roundTimeout    = 30 * time.Second
	// dnsPeersMax of the lowest addresses are asked.
	dnsPeersMax = 3
)

// bootstrapper names first peers; an empty id is found out by dialling. Nil: wait for others.
type bootstrapper func(context.Context) ([]peer.AddrInfo, error)

func newBootstrapper(kind, source string) (bootstrapper, error) {
	switch kind {
	case "":
		return nil, nil
	case "dns":
		return func(ctx context.Context) ([]peer.AddrInfo, error) { return peersOfDomain(ctx, source) }, nil
	case "http":
		return func(ctx context.Context) ([]peer.AddrInfo, error) { return peersOfURL(ctx, source) }, nil
	case "static":
		var peers []peer.AddrInfo
		for text := range strings.SplitSeq(source, ",") {
			// Spegel wants the peer's id in each.
			info, err := peer.AddrInfoFromString(text)
			if err != nil {
				return nil, err
			}
			peers = append(peers, *info)
		}
		return func(context.Context) ([]peer.AddrInfo, error) { return peers, nil }, nil
	default:
		return nil, fmt.Errorf("no such bootstrap: %q", kind)
	}
}

// run looks for first peers with a back-off while there are none, and seldom afterwards.
func (b bootstrapper) run(ctx context.Context, swarm *swarm, log *slog.Logger) {
	if b == nil {
		return
	}
	retry := firstRetry
	for ctx.Err() == nil {
		if err := b.round(ctx, swarm); err != nil {
			log.Info("bootstrap", "error", err)
		}
		wait := retry
		if swarm.connected() {
			<-swarm.dht.RefreshRoutingTable()
			wait = refreshInterval
		}
		retry = min(2*retry, lastRetry)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (b bootstrapper) round(ctx context.Context, swarm *swarm) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	peers, err := b(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for _, info := range peers {
		failures = append(failures, connect(ctx, swarm, info))
	}
	return errors.Join(failures...)
}

// connect dials a peer. One without an id is dialled with an id made up: the refusal tells the true one.
func connect(ctx context.Context, swarm *swarm, info peer.AddrInfo) error {
	if info.ID == "" {
		made, err := randomID()
		if err != nil {
			return err
		}
		err = swarm.host.Connect(ctx, peer.AddrInfo{ID: made, Addrs: info.Addrs})
		var mismatch sec.ErrPeerIDMismatch
		if !errors.As(err, &mismatch) {
			return fmt.Errorf("no id learnt from %v: %w", info.Addrs, err)
		}
		info.ID = mismatch.Actual
	}
	if info.ID == swarm.host.ID() {
		return nil
	}
	return swarm.host.Connect(ctx, info)
}

func randomID() (peer.ID, error) {
	_, public, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(public)
}

func peersOfDomain(ctx context.Context, domain string) ([]peer.AddrInfo, error) {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", domain)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(ips, func(a, b netip.Addr) int { return a.Compare(b) })
	var peers []peer.AddrInfo
	for _, ip := range ips[:min(len(ips), dnsPeersMax)] {
		address, err := ma.NewMultiaddr(fmt.Sprintf("/ip4/%s/tcp/%s", ip.Unmap(), routerPort))
		if err != nil {
			return nil, err
		}
		peers = append(peers, peer.AddrInfo{Addrs: []ma.Multiaddr{address}})
	}
	return peers, nil
}

// peersOfURL reads one object, as Spegel 0.7 does. encoding/json of peer.AddrInfo is the format: {"ID", "Addrs"}.
func peersOfURL(ctx context.Context, url string) ([]peer.AddrInfo, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, response.Status)
	}
	var info peer.AddrInfo
	if err := json.NewDecoder(response.Body).Decode(&info); err != nil {
		return nil, err
	}
	return []peer.AddrInfo{info}, nil
}

// identityHandler answers GET /id with who this node is, and, for tests, GET /records?of=ID&key=…&key=… with the number
// of the keys that the node of that id has announced to this one, and GET /addresses?of=ID with where that node is.
func identityHandler(swarm *swarm, array bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /id", func(w http.ResponseWriter, _ *http.Request) {
		var answer any = peer.AddrInfo{ID: swarm.host.ID(), Addrs: swarm.host.Addrs()}
		if array {
			answer = []any{answer}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
	mux.HandleFunc("GET /records", func(w http.ResponseWriter, request *http.Request) {
		query := request.URL.Query()
		count, err := swarm.records(request.Context(), query.Get("of"), query["key"])
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(count)
	})
	mux.HandleFunc("GET /addresses", func(w http.ResponseWriter, request *http.Request) {
		id, err := peer.Decode(request.URL.Query().Get("of"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(swarm.host.Peerstore().Addrs(id))
	})
	return mux
}
