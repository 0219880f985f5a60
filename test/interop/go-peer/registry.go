package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const (
	// mirroredHeader marks a question between mirrors: answer from your own content, do not ask on.
	mirroredHeader = "X-Spegel-Mirrored"
	// shortBudget bounds what is not the body of a blob.
	shortBudget = 3 * time.Second
)

var contentPath = regexp.MustCompile(`^/v2/(.+)/(blobs|manifests)/([^/]+)$`)

// registry is what containerd and other nodes ask.
type registry struct {
	store  *content
	swarm  *swarm
	client *http.Client
	log    *slog.Logger
}

func newRegistry(store *content, swarm *swarm, log *slog.Logger) http.Handler {
	registry := &registry{store: store, swarm: swarm, client: &http.Client{}, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !swarm.connected() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /v2/", registry.serve)
	return mux
}

func (r *registry) serve(w http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/v2/" {
		return
	}
	r.log.Info("asked", "by", request.RemoteAddr, mirroredHeader, request.Header.Get(mirroredHeader))
	parts := contentPath.FindStringSubmatch(request.URL.Path)
	namespace := request.URL.Query().Get("ns")
	if parts == nil || namespace == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	name, kind, reference := parts[1], parts[2], parts[3]
	key := reference
	if !strings.HasPrefix(reference, "sha256:") {
		key = fmt.Sprintf("%s/%s:%s", namespace, name, reference)
	}
	if r.serveOwn(w, request, key, kind, namespace) {
		return
	}
	if request.Header.Get(mirroredHeader) != "true" && r.mirror(w, request, key, kind) {
		return
	}
	code := map[string]string{"blobs": "BLOB_UNKNOWN", "manifests": "MANIFEST_UNKNOWN"}[kind]
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, "could not find peer for "+key)
}

// serveOwn answers from this node's content; false when it has not got it.
func (r *registry) serveOwn(w http.ResponseWriter, request *http.Request, key, kind, namespace string) bool {
	digest, ok := r.store.resolve(key)
	if !ok {
		return false
	}
	file, err := r.store.open(digest)
	if err != nil {
		return false
	}
	defer file.Close()
	contentType := "application/octet-stream"
	if kind == "manifests" {
		if contentType, err = mediaType(file); err != nil {
			return false
		}
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("OCI-Namespace", namespace)
	http.ServeContent(w, request, "", time.Time{}, file)
	return true
}

// mirror passes on the answer of the first provider that gives a good one; false when there is none.
func (r *registry) mirror(w http.ResponseWriter, request *http.Request, key, kind string) bool {
	ctx := request.Context()
	if request.Method == http.MethodHead || kind == "manifests" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, shortBudget)
		defer cancel()
	}
	for ip := range r.swarm.providers(ctx, key) {
		answer, err := r.ask(ctx, ip, request)
		if err != nil {
			continue
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent {
			continue
		}
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest"} {
			if value := answer.Header.Get(name); value != "" {
				w.Header().Set(name, value)
			}
		}
		w.WriteHeader(answer.StatusCode)
		// A body that breaks off ends the connection, since fewer bytes follow than the length says.
		_, _ = io.Copy(w, answer.Body)
		return true
	}
	return false
}

// ask puts the request to another node. Go itself adds "Accept-Encoding: gzip" where there is no range.
func (r *registry) ask(ctx context.Context, ip string, request *http.Request) (*http.Response, error) {
	url := *request.URL
	url.Scheme, url.Host = "http", net.JoinHostPort(ip, registryPort)
	question, err := http.NewRequestWithContext(ctx, request.Method, url.String(), nil)
	if err != nil {
		return nil, err
	}
	question.Header.Set(mirroredHeader, "true")
	question.Header.Set("User-Agent", "spegel")
	// Spegel sends empty credentials where authentication is off.
	question.SetBasicAuth("", "")
	for _, mediaType := range []string{
		"application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json",
		"application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.list.v2+json",
	} {
		question.Header.Add("Accept", mediaType)
	}
	if value := request.Header.Get("Range"); value != "" {
		question.Header.Set("Range", value)
	}
	return r.client.Do(question)
}
