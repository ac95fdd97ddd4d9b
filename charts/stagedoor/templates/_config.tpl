{{/* What the chart reads in the config. */}}

{{/*
The listeners, as a list in JSON, sorted by name: name, kind, host, port, whether it is on loopback, has TLS and only reports,
and a name for its port (a Service allows 15 characters).
*/}}
{{- define "stagedoor.listeners" -}}
{{- $all := list -}}
{{- range $name, $l := .Values.config.listeners -}}
{{- $host := regexReplaceAll ":[0-9]+$" $l.address "" | trimPrefix "[" | trimSuffix "]" -}}
{{- $port := regexFind "[0-9]+$" $l.address | int -}}
{{- $loopback := or (hasPrefix "127." $host) (eq $host "::1") -}}
{{- $fits := and (regexMatch "^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$" $name) (regexMatch "[a-z]" $name) (not (contains "--" $name)) -}}
{{- $portName := ternary $name (printf "port-%d" $port) $fits -}}
{{- if eq $l.kind "status" -}}{{- $portName = "stagedoor-probe" -}}{{- end -}}
{{- $all = append $all (dict "name" $name "kind" $l.kind "host" $host "port" $port "loopback" $loopback
  "tls" (hasKey $l "tls") "reportOnly" ($l.report_only | default false) "portName" $portName) -}}
{{- end -}}
{{ toJson $all }}
{{- end -}}

{{/* Those that other pods reach, what tells of us aside. */}}
{{- define "stagedoor.entrances" -}}
{{- $all := list -}}
{{- range include "stagedoor.listeners" . | fromJsonArray -}}
{{- if not (or .loopback (has .kind (list "admin" "status"))) -}}{{- $all = append $all . -}}{{- end -}}
{{- end -}}
{{ toJson $all }}
{{- end -}}

{{/* The listener that probes and Prometheus ask, or nothing. */}}
{{- define "stagedoor.status" -}}
{{- $found := dict -}}
{{- range include "stagedoor.listeners" . | fromJsonArray -}}
{{- if and (eq .kind "status") (not .loopback) (not $found) -}}{{- $found = . -}}{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{/* The listener that operators ask, or nothing. */}}
{{- define "stagedoor.admin" -}}
{{- $found := dict -}}
{{- range include "stagedoor.listeners" . | fromJsonArray -}}
{{- if and (eq .kind "admin") (not $found) -}}{{- $found = . -}}{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{/* The forward listener that Backstage is sent to, or nothing: `backstage.forwardListener`, else the first. */}}
{{- define "stagedoor.forward" -}}
{{- $found := dict -}}
{{- $wanted := .Values.backstage.forwardListener -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
{{- range include "stagedoor.listeners" . | fromJsonArray -}}
{{- if and (eq .kind "forward") (or $sidecar (not .loopback)) (not $found) (or (not $wanted) (eq .name $wanted)) -}}{{- $found = . -}}{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{/* A duration of the config in milliseconds: `500ms`, `10s`, `2m`, `1h`, `1d`, and such together (`1m30s`). */}}
{{- define "stagedoor.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" (toString .) -1 -}}
{{- $sum = add $sum (mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{ $sum }}
{{- end -}}

{{- define "stagedoor.auditFolder" -}}
{{- $audit := .Values.config.audit | default dict -}}
{{/* `folder` is its old name. */}}
{{- $audit.directory | default $audit.folder | default "" }}
{{- end -}}
