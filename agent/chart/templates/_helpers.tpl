{{/* A name with its suffix, cut so that both fit where Kubernetes allows 63 characters. */}}
{{- define "agent.suffixed" -}}
{{- if .suffix -}}
{{ printf "%s-%s" (.name | trunc (int (sub 62 (len .suffix))) | trimSuffix "-") .suffix }}
{{- else -}}
{{ .name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "agent.name" -}}
{{ include "agent.suffixed" (dict "name" (.root.Values.nameOverride | default .root.Chart.Name) "suffix" .suffix) }}
{{- end }}

{{- define "agent.fullname" -}}
{{- $name := .root.Values.nameOverride | default .root.Chart.Name -}}
{{- $release := ternary .root.Release.Name (printf "%s-%s" .root.Release.Name $name) (contains $name .root.Release.Name) -}}
{{ include "agent.suffixed" (dict "name" (.root.Values.fullnameOverride | default $release) "suffix" .suffix) }}
{{- end }}

{{- define "agent.selector" -}}
app.kubernetes.io/name: {{ include "agent.name" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "agent.labels" -}}
{{ include "agent.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app: eks-pod-identity-agent
{{- end }}

{{- define "agent.image" -}}
{{ .Values.image.override | default (printf "%s/eks-pod-identity-agent:%s" .Values.image.containerRegistry (toString .Values.image.tag)) }}
{{- end }}

{{/* A command, given as a list or, as in value files of AWS's chart, as the text of one. */}}
{{- define "agent.command" -}}
{{ kindIs "string" . | ternary . (toJson .) }}
{{- end }}

{{/* Flags of a map, each word an item of its own. */}}
{{- define "agent.mapArgs" -}}
{{- range $flag, $value := . }}
- {{ $flag | quote }}
- {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "agent.verifiesTokens" -}}
{{ if not (has .Values.agent.cacheKey (list "token" "pod-uid")) }}{{ fail (printf "agent.cacheKey is %q; it must be token or pod-uid" .Values.agent.cacheKey) }}{{ end }}
{{- if eq .Values.agent.cacheKey "pod-uid" }}true{{ end }}
{{- end }}
