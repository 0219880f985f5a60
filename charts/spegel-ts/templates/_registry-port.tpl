{{/* How containerd reaches the daemon of its own node. */}}

{{/* PreferSameNode is on by default from 1.34; older API servers refuse the word. */}}
{{- define "spegel-ts.hasSameNode" -}}
{{- if semverCompare ">=1.34.0-0" .Capabilities.KubeVersion.Version }}yes{{ end }}
{{- end }}

{{/* Empty: no node port. */}}
{{- define "spegel-ts.nodePort" -}}
{{- with .Values.service.registry }}
{{- if .nodePort }}{{ .nodePort }}
{{- else if and (not .hostPort) (include "spegel-ts.hasSameNode" $) }}30020
{{- end }}
{{- end }}
{{- end }}

{{/* Empty: no host port. */}}
{{- define "spegel-ts.hostPort" -}}
{{- with .Values.service.registry }}
{{- if .hostPort }}{{ .hostPort }}
{{- else if and (not .nodePort) (not (include "spegel-ts.hasSameNode" $)) }}30020
{{- end }}
{{- end }}
{{- end }}

{{/* URLs for hosts.toml, in the order in which containerd asks. NODE_IP is an environment variable of the container. */}}
{{- define "spegel-ts.mirrorTargets" -}}
{{- with include "spegel-ts.hostPort" . }}
- http://$(NODE_IP):{{ . }}
{{- end }}
{{- with include "spegel-ts.nodePort" . }}
- http://$(NODE_IP):{{ . }}
{{- end }}
{{- with .Values.spegel.additionalMirrorTargets }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* For containers whose arguments have mirrorTargets. */}}
{{- define "spegel-ts.nodeIpEnv" -}}
- name: NODE_IP
  {{- if .Values.service.registry.nodeIp }}
  value: {{ .Values.service.registry.nodeIp | quote }}
  {{- else }}
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
  {{- end }}
{{- end }}
