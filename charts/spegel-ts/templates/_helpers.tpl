{{/* Names and labels. */}}

{{- define "spegel-ts.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 40 characters leave room for the suffixes of resources: names of services have 63 at most. */}}
{{- define "spegel-ts.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "spegel-ts.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "spegel-ts.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "spegel-ts.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "spegel-ts.serviceAccountName" -}}
{{- default (include "spegel-ts.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "spegel-ts.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{/* What never changes during the life of a release. Takes {root, component}. */}}
{{- define "spegel-ts.selectorLabels" -}}
app.kubernetes.io/name: {{ include "spegel-ts.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Takes {root, component}. */}}
{{- define "spegel-ts.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "spegel-ts.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The headless service with the addresses of all daemons. */}}
{{- define "spegel-ts.bootstrapDomain" -}}
{{ include "spegel-ts.fullname" . }}-bootstrap.{{ include "spegel-ts.namespace" . }}.svc.{{ .Values.clusterDomain }}
{{- end }}
