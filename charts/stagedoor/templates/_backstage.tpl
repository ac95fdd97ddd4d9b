{{/*
Values for Backstage's own chart: in mode `sidecar` the native sidecar, and wherever there is a forward listener, what
sends Backstage's calls through it.
*/}}
{{- define "stagedoor.backstageValues" -}}
{{- $b := .Values.backstage -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
{{- $forward := include "stagedoor.forward" . | fromJson -}}
backstage:
  {{- if $sidecar }}
  {{- /* 30 is Kubernetes' own default, and charts of before August 2026 do not take the key. */}}
  {{- if ne (int .Values.terminationGracePeriodSeconds) 30 }}
  # The whole pod's: Backstage stops first, then the sidecar drains.
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- end }}
  initContainers:
    # A native sidecar: it runs beside Backstage, which starts only when the startup probe has succeeded.
    - restartPolicy: Always
      {{- include "stagedoor.container" . | nindent 6 }}
  {{- end }}
  {{- $bootstrap := and $forward $b.bootstrap }}
  {{- if or $sidecar $bootstrap }}
  extraVolumes:
    {{- if $sidecar }}
    {{- include "stagedoor.volumes" . | nindent 4 }}
    {{- end }}
    {{- if $bootstrap }}
    - name: stagedoor-bootstrap
      configMap:
        name: {{ include "stagedoor.fullname" . }}-backstage
        items:
          - {key: egress-bootstrap.js, path: egress-bootstrap.js}
    {{- end }}
  {{- end }}
  {{- if $bootstrap }}
  extraVolumeMounts:
    - {name: stagedoor-bootstrap, mountPath: /opt/stagedoor, readOnly: true}
  {{- end }}
  {{- if $forward }}
  {{- $host := ternary "127.0.0.1" (printf "%s.%s.svc" (include "stagedoor.fullname" .) .Release.Namespace) $sidecar }}
  {{- $port := ternary $forward.port (get .Values.service.ports $forward.name | default $forward.port) $sidecar }}
  {{- $login := ternary "$(STAGEDOOR_USER):$(STAGEDOOR_PASSWORD)@" "" (ne $b.proxyLogin.existingSecret "") }}
  {{- $proxy := printf "%s://%s%s:%d" (ternary "https" "http" $forward.tls) $login $host (int $port) }}
  extraEnvVars:
    {{- with $b.proxyLogin }}
    {{- if .existingSecret }}
    # Before the variables that are made of them.
    - name: STAGEDOOR_USER
      valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .userKey }}}}
    - name: STAGEDOOR_PASSWORD
      valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .passwordKey }}}}
    {{- end }}
    {{- end }}
    - {name: HTTPS_PROXY, value: {{ $proxy | quote }}}
    - {name: HTTP_PROXY, value: {{ $proxy | quote }}}
    - {name: NO_PROXY, value: {{ join "," (concat (list "127.0.0.1" "localhost") $b.noProxy) | quote }}}
    {{- if $b.bootstrap }}
    - {name: NODE_OPTIONS, value: {{ printf "%s -r /opt/stagedoor/egress-bootstrap.js" $b.nodeOptions | trim | quote }}}
    - {name: NODE_PATH, value: {{ $b.nodePath | quote }}}
    {{- else }}
    - {name: NODE_USE_ENV_PROXY, value: "1"}
    {{- end }}
  {{- end }}
{{- end -}}
