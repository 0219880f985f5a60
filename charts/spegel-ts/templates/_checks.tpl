{{/* What values.schema.json cannot say: rules between values. */}}

{{- define "spegel-ts.check" -}}
{{- $registry := .Values.service.registry }}
{{- $strategy := default dict .Values.updateStrategy.rollingUpdate }}
{{- if and $registry.nodePort (eq (toString $registry.nodePort) (toString $registry.hostPort)) }}
{{- fail (printf "service.registry: nodePort and hostPort are both %v: choose two numbers, or one of them" $registry.nodePort) }}
{{- end }}
{{- if and (include "spegel-ts.hostPort" .) (hasKey $strategy "maxSurge") (not (has (toString $strategy.maxSurge) (list "0" "0%"))) }}
{{- fail "updateStrategy: maxSurge cannot be used with service.registry.hostPort, which only one pod of a node can have: use maxUnavailable" }}
{{- end }}
{{- if and .Values.spegel.containerdMirrorAdd (not .Values.spegel.containerdRegistryConfigPath) }}
{{- fail "spegel.containerdRegistryConfigPath is empty: name containerd's certs.d, or set spegel.containerdMirrorAdd=false" }}
{{- end }}
{{- with .Values.spegel.bootstrap }}
{{- if and (eq .kind "http") (not .url) }}
{{- fail "spegel.bootstrap.kind http needs spegel.bootstrap.url" }}
{{- end }}
{{- if and (eq .kind "static") (not .peers) }}
{{- fail "spegel.bootstrap.kind static needs spegel.bootstrap.peers" }}
{{- end }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled would scrape every pod twice: choose one" }}
{{- end }}
{{- include "spegel-ts.checkUpgrade" . }}
{{- end }}

{{/* Only with a cluster at hand: elsewhere lookup finds nothing. */}}
{{- define "spegel-ts.checkUpgrade" -}}
{{- if not .Values.spegel.containerdMirrorAdd }}
{{- $running := lookup "apps/v1" "DaemonSet" (include "spegel-ts.namespace" .) (include "spegel-ts.fullname" .) }}
{{- range dig "spec" "template" "spec" "initContainers" list $running }}
{{- if eq .name "configuration" }}
{{- fail "spegel.containerdMirrorAdd: the running release wrote hosts.toml on the nodes, and only an uninstall restores it: uninstall, then install with containerdMirrorAdd=false" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
