package main

import (
	"context"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
)

type registryHost = docker.RegistryHost

// The options that containerd's CRI plugin sets for a config_path without credentials.
func hostsFromRoot(root string) func(string) ([]registryHost, error) {
	return config.ConfigureHosts(context.Background(), config.HostOptions{
		HostDir:     config.HostDirFromRoot(root),
		Credentials: func(string) (string, string, error) { return "", "", nil },
	})
}
