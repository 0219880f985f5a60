{{/* Parts that several containers share. */}}

{{/* Files that belong to root and others are copied with owner and mode: no other capability is needed. */}}
{{- define "spegel-ts.rootSecurityContext" -}}
runAsNonRoot: false
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: {{ . | toJson }}
{{- end }}

{{/* A short-lived process of Node. Its limit is no measured need but a bound. */}}
{{- define "spegel-ts.helperResources" -}}
requests:
  cpu: 10m
  memory: 64Mi
limits:
  memory: 192Mi
{{- end }}

{{/* Kubernetes replaces $(NAME) in arguments, and reads $$ as $: what users write is meant as it is. */}}
{{- define "spegel-ts.literal" -}}
{{ . | replace "$" "$$" | quote }}
{{- end }}

{{- define "spegel-ts.basicAuthVolume" -}}
- name: basic-auth
  secret:
    secretName: {{ .Values.basicAuthSecretName }}
    # Group 0, which the daemon has.
    defaultMode: 0440
{{- end }}
