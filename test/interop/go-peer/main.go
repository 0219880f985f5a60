// Go-peer stands for a node of Spegel in the interop tests (test/system/interop.test.ts). Spegel's own Go module cannot
// be installed here, so this program joins the libraries that Spegel is made of, go-libp2p and go-libp2p-kad-dht in the
// versions of its main branch, with the settings that Spegel gives them, and adds as much of a mirror as another node
// can see: the swarm on port 5001, HTTP on port 5000. Own code under this repository's licence; nothing is from Spegel.
package main

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

const (
	registryPort = "5000"
	routerPort   = "5001"
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		log.Error("go-peer", "error", err)
		os.Exit(1)
	}
}

func run(log *slog.Logger) error {
	blobs := flag.String("blobs", "", "folder of content, in files named by the hex part of their digest")
	keysFile := flag.String("keys", "", "file of what to advertise; a line is a digest, or registry/repository:tag and a digest. Read again at SIGHUP")
	dataDir := flag.String("data-dir", "", "folder of private.key, so that the identity survives a restart")
	kind := flag.String("bootstrap-kind", "", "dns, http or static; empty: wait for others")
	source := flag.String("bootstrap", "", "domain, URL, or multiaddrs separated by commas")
	idAddr := flag.String("id-addr", "", "address to answer GET /id at, such as :5002")
	idArray := flag.Bool("id-array", false, "answer GET /id with an array, as Spegel does since its main branch of 2026")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	bootstrapper, err := newBootstrapper(*kind, *source)
	if err != nil {
		return err
	}
	store := &content{folder: *blobs, keysFile: *keysFile}
	swarm, err := joinSwarm(*dataDir)
	if err != nil {
		return err
	}
	defer swarm.close()
	log.Info("started", "id", swarm.host.ID(), "addresses", swarm.host.Addrs())

	failed := make(chan error, 2)
	serve := func(address string, handler http.Handler) {
		go func() { failed <- http.ListenAndServe(address, handler) }()
	}
	serve(":"+registryPort, newRegistry(store, swarm, log))
	if *idAddr != "" {
		serve(*idAddr, identityHandler(swarm, *idArray))
	}
	go bootstrapper.run(ctx, swarm, log)

	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	for {
		keys, err := store.load()
		if err != nil {
			return err
		}
		if err := swarm.advertise(ctx, keys); err != nil {
			return err
		}
		log.Info("advertising", "keys", len(keys))
		select {
		case <-reload:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}
