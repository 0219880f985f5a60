// Judges a certs.d directory with containerd's own loader. One JSON request per line on stdin, one JSON response per
// line on stdout:
//
//	{"root": DIR, "registries": [NAME…]}  → {"verdicts": {NAME: verdict…}}
//	{"make": [step…], "at": DIR}          → {}          performs file operations (tree.go)
//	{"snapshot": DIR}                     → {"entries": {PATH: entry…}}
//
// Every response may be {"failed": MESSAGE} instead. A panic of the loader is a verdict, not the end of the process.
// The build adds one loader-*.go and the go.mod of one containerd version.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strings"
	"unsafe"

	"github.com/sirupsen/logrus"
)

type request struct {
	Root       string   `json:"root"`
	Registries []string `json:"registries"`
	Make       []step   `json:"make"`
	At         string   `json:"at"`
	Snapshot   string   `json:"snapshot"`
}

type response struct {
	Failed   string             `json:"failed,omitempty"`
	Verdicts map[string]verdict `json:"verdicts,omitempty"`
	Entries  map[string]entry   `json:"entries,omitempty"`
}

// Exactly one of Error, Panic and Hosts is set. Logs are the messages that containerd would log meanwhile.
type verdict struct {
	Error string   `json:"error,omitempty"`
	Panic string   `json:"panic,omitempty"`
	Hosts []host   `json:"hosts"`
	Logs  []string `json:"logs,omitempty"`
}

type host struct {
	Scheme       string              `json:"scheme"`
	Host         string              `json:"host"`
	Path         string              `json:"path"`
	Capabilities []string            `json:"capabilities"`
	Header       map[string][]string `json:"header,omitempty"`
	// Sent to token services (from 2.1 on).
	AuthHeader map[string][]string `json:"authHeader,omitempty"`
	// https first, then http on the same port.
	HTTPFallback bool `json:"httpFallback,omitempty"`
	SkipVerify   bool `json:"skipVerify,omitempty"`
	// Absent: the system's CAs. Otherwise hashes of the certificates that were added to them.
	CAs *[]string `json:"cas,omitempty"`
	// Hashes of certificate chains with their keys, in order.
	ClientCertificates []string `json:"clientCertificates,omitempty"`
	DialTimeoutMs      int64    `json:"dialTimeoutMs"`
}

func main() {
	// The system's CAs are not what is judged, and loading them takes most of the time.
	os.Setenv("SSL_CERT_FILE", "/dev/null")
	os.Setenv("SSL_CERT_DIR", "/nonexistent")
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		encoded, err := json.Marshal(respond(line))
		if err != nil {
			panic(err)
		}
		out.Write(append(encoded, '\n'))
		out.Flush()
	}
}

func respond(line []byte) response {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return response{Failed: err.Error()}
	}
	var result response
	var err error
	switch {
	case r.Root != "":
		result.Verdicts = map[string]verdict{}
		for _, name := range r.Registries {
			result.Verdicts[name] = judge(r.Root, name)
		}
	case r.At != "":
		err = perform(r.At, r.Make)
	case r.Snapshot != "":
		result.Entries, err = snapshot(r.Snapshot)
	default:
		err = fmt.Errorf("unknown request")
	}
	if err != nil {
		return response{Failed: err.Error()}
	}
	return result
}

func judge(root, name string) (result verdict) {
	var logs bytes.Buffer
	logrus.SetOutput(&logs)
	logrus.SetFormatter(&logrus.JSONFormatter{DisableTimestamp: true})
	defer func() {
		if cause := recover(); cause != nil {
			result = verdict{Panic: fmt.Sprint(cause)}
		}
		for _, line := range strings.Split(strings.TrimSpace(logs.String()), "\n") {
			if line != "" {
				result.Logs = append(result.Logs, line)
			}
		}
	}()
	hosts, err := hostsFromRoot(root)(name)
	if err != nil {
		return verdict{Error: err.Error()}
	}
	result.Hosts = make([]host, 0, len(hosts))
	for _, each := range hosts {
		result.Hosts = append(result.Hosts, describe(each))
	}
	return result
}

func describe(found registryHost) host {
	result := host{
		Scheme:       found.Scheme,
		Host:         found.Host,
		Path:         found.Path,
		Capabilities: []string{},
		Header:       found.Header,
	}
	for bit, name := range []string{"pull", "resolve", "push", "referrers"} {
		if int(found.Capabilities)&(1<<bit) != 0 {
			result.Capabilities = append(result.Capabilities, name)
		}
	}
	result.AuthHeader, _ = hidden(reflect.ValueOf(found.Authorizer), "header").(http.Header)
	transport, isPlain := found.Client.Transport.(*http.Transport)
	if !isPlain {
		// docker.httpFallback, which is not exported.
		transport = hidden(reflect.ValueOf(found.Client.Transport), "super").(*http.Transport)
		result.HTTPFallback = true
	}
	if config := transport.TLSClientConfig; config != nil {
		result.SkipVerify = config.InsecureSkipVerify
		if config.RootCAs != nil {
			sums := []string{}
			// Sets of added certificates can be told apart by the hashes that the pool keeps of them.
			for _, sum := range reflect.ValueOf(config.RootCAs).Elem().FieldByName("haveSum").MapKeys() {
				sums = append(sums, fmt.Sprintf("%x", sum)[:16])
			}
			sort.Strings(sums)
			result.CAs = &sums
		}
		for _, certificate := range config.Certificates {
			key := []byte(fmt.Sprint(certificate.PrivateKey))
			result.ClientCertificates = append(result.ClientCertificates, hash(append(certificate.Certificate, key)...))
		}
	}
	result.DialTimeoutMs = dialTimeoutMs(transport)
	return result
}

// The transport holds a bound method of a net.Dialer: a closure of the code's address and the dialer.
func dialTimeoutMs(transport *http.Transport) int64 {
	dial := transport.DialContext
	name := runtime.FuncForPC(reflect.ValueOf(dial).Pointer()).Name()
	if name != "net.(*Dialer).DialContext-fm" {
		panic("cannot find the dialer in " + name)
	}
	closure := *(**struct {
		code   uintptr
		dialer *net.Dialer
	})(unsafe.Pointer(&dial))
	return closure.dialer.Timeout.Milliseconds()
}

// The value of an unexported field of the struct that a pointer in an interface points to.
func hidden(pointer reflect.Value, name string) any {
	field := pointer.Elem().FieldByName(name)
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Interface()
}

func hash(parts ...[]byte) string {
	sum := sha256.New()
	for _, part := range parts {
		sum.Write(part)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}
