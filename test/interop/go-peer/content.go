package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// content is what this node has: blobs in a folder, and the keys that it advertises.
type content struct {
	folder   string
	keysFile string

	mutex sync.Mutex
	tags  map[string]string
}

// load reads the file of keys and returns the keys in it.
func (c *content) load() ([]string, error) {
	if c.keysFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.keysFile)
	if err != nil {
		return nil, err
	}
	var keys []string
	tags := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		keys = append(keys, fields[0])
		if len(fields) > 1 {
			tags[fields[0]] = fields[1]
		}
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.tags = tags
	return keys, nil
}

// resolve returns the digest that a key stands for.
func (c *content) resolve(key string) (string, bool) {
	if strings.HasPrefix(key, "sha256:") {
		return key, true
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	digest, ok := c.tags[key]
	return digest, ok
}

func (c *content) open(digest string) (*os.File, error) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || c.folder == "" || strings.ContainsAny(hex, "/.") {
		return nil, fmt.Errorf("no content %q", digest)
	}
	return os.Open(filepath.Join(c.folder, hex))
}

// mediaType is the type that a manifest says it has.
func mediaType(file *os.File) (string, error) {
	var manifest struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.NewDecoder(file).Decode(&manifest); err != nil {
		return "", err
	}
	if manifest.MediaType == "" {
		return "", fmt.Errorf("%s is not a manifest", file.Name())
	}
	_, err := file.Seek(0, io.SeekStart)
	return manifest.MediaType, err
}
