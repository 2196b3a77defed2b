{{- define "webhook.fullname" -}}
{{- default (printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride)) .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "webhook.selector" -}}
app.kubernetes.io/name: {{ include "webhook.fullname" . }}
{{- end }}

{{- define "webhook.labels" -}}
{{ include "webhook.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "webhook.serviceAccount" -}}
{{- default (include "webhook.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "webhook.secret" -}}
{{- default (include "webhook.fullname" .) .Values.pki.existingSecret }}
{{- end }}

{{- define "webhook.service" -}}
{{ include "webhook.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}
