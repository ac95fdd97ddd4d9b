{{/* The container: of our own pods, and as a native sidecar of Backstage's. */}}
{{- define "stagedoor.container" -}}
{{- $status := include "stagedoor.status" . | fromJson -}}
name: stagedoor
image: {{ include "stagedoor.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, -c, /etc/stagedoor/stagedoor.yaml]
{{- with .Values.extraEnvVars }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvVarsSecrets }}
envFrom:
  {{- range . }}
  - secretRef: {name: {{ . | quote }}}
  {{- end }}
{{- end }}
ports:
  {{- range include "stagedoor.listeners" . | fromJsonArray }}
  {{- if not .loopback }}
  - {name: {{ .portName }}, containerPort: {{ .port }}, protocol: TCP}
  {{- end }}
  {{- end }}
startupProbe:
  httpGet: {path: /readyz, port: {{ $status.portName }}}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: {{ $status.portName }}}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: {{ $status.portName }}}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
volumeMounts:
  - {name: stagedoor-config, mountPath: /etc/stagedoor, readOnly: true}
  {{- if include "stagedoor.auditFolder" . | trim }}
  - {name: stagedoor-audit, mountPath: /var/lib/stagedoor/audit}
  {{- end }}
  {{- range $name, $_ := .Values.secrets }}
  - {name: stagedoor-secret-{{ $name }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/*
Its volumes, as a list. Folders, never single files (`subPath`): those would never see a change. Config and
certificates are one volume, because a folder cannot be mounted within one that is read-only everywhere.
*/}}
{{- define "stagedoor.volumes" -}}
{{- $tls := include "stagedoor.tlsSecret" . | trim -}}
- name: stagedoor-config
  projected:
    sources:
      - configMap:
          name: {{ include "stagedoor.fullname" . }}
      {{- with $tls }}
      - secret:
          name: {{ . }}
          items:
            - {key: tls.crt, path: tls/tls.crt}
            - {key: tls.key, path: tls/tls.key}
      # Not every issuer gives one.
      - secret:
          name: {{ . }}
          optional: true
          items:
            - {key: ca.crt, path: tls/ca.crt}
      {{- end }}
{{- $claims := and .Values.audit.persistence.enabled (ne .Values.mode "sidecar") }}
{{- if and (include "stagedoor.auditFolder" . | trim) (not $claims) }}
- name: stagedoor-audit
  {{- if .Values.audit.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ .Values.audit.persistence.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.audit.sizeLimit }}
  {{- end }}
{{- end }}
{{- range $name, $secret := .Values.secrets }}
- name: stagedoor-secret-{{ $name }}
  secret:
    secretName: {{ include "stagedoor.secret" (dict "name" $name "secret" $secret "context" $) | trim }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The template of our own pods. It has no checksum of the config: pods take changes over by themselves. */}}
{{- define "stagedoor.pod" -}}
metadata:
  labels:
    {{- include "stagedoor.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "stagedoor.serviceAccountName" . | trim }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with concat .Values.global.imagePullSecrets .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ toYaml . | nindent 6 | trim }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "stagedoor.selectorLabels" $ | nindent 10 }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "stagedoor.container" . | nindent 6 | trim }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "stagedoor.volumes" . | nindent 4 }}
{{- end -}}
