{{/* Names, labels, the image. */}}

{{- define "stagedoor.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* At most 40 characters, so that what is put behind it fits, too. */}}
{{- define "stagedoor.fullname" -}}
{{- $name := include "stagedoor.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end -}}

{{- define "stagedoor.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stagedoor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end -}}

{{- define "stagedoor.labels" -}}
{{ include "stagedoor.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object: a dict of `name`, `context`, and, if it has them, `namespace`, `labels` and `annotations`. */}}
{{- define "stagedoor.metadata" -}}
{{- $c := .context -}}
name: {{ .name }}
namespace: {{ .namespace | default $c.Release.Namespace }}
labels:
  {{- include "stagedoor.labels" $c | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) $c.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "stagedoor.image" -}}
{{- $i := .Values.image -}}
{{- with .Values.global.imageRegistry | default $i.registry }}{{ . }}/{{ end -}}
{{ $i.repository }}{{ if $i.digest }}@{{ $i.digest }}{{ else }}:{{ $i.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "stagedoor.serviceAccountName" -}}
{{- $own := ternary (include "stagedoor.fullname" .) "default" .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default $own }}
{{- end -}}

{{- define "stagedoor.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "stagedoor.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end -}}

{{/* The Secret of an entry of `secrets`: a dict of `name`, `secret` and `context`. */}}
{{- define "stagedoor.secret" -}}
{{- if .secret.existingSecret -}}
{{ .secret.existingSecret }}
{{- else -}}
{{ include "stagedoor.fullname" .context }}-{{ .name }}
{{- end -}}
{{- end -}}

{{- define "stagedoor.backstageNamespace" -}}
{{ .Values.backstage.namespace | default .Release.Namespace }}
{{- end -}}
