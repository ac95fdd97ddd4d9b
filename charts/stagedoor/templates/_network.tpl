{{/* What a NetworkPolicy can say of the config. It knows addresses, ports, namespaces and labels, but no names. */}}

{{/*
Where Stagedoor connects to by its config, as a list in JSON of {host, port}: upstreams, issuers, where tokens are
asked for, the control source, the store, the parent proxy, and what egress rules name. Port 0 is any.
*/}}
{{- define "stagedoor.destinations" -}}
{{- $c := .Values.config -}}
{{- $urls := list -}}
{{- range $_, $u := $c.upstreams -}}{{- $urls = append $urls $u.url -}}{{- end -}}
{{- range $_, $i := ($c.identity | default dict).issuers -}}
{{- $k := $i.keys | default dict -}}
{{- if or $k.url $k.backstage_url -}}
{{- $urls = append $urls ($k.url | default $k.backstage_url) -}}
{{- else if not (or $k.file $k.secret_file) -}}
{{- $urls = append $urls $i.issuer -}}
{{- end -}}
{{- end -}}
{{- range $_, $k := $c.credentials -}}
{{- with $k.token_url -}}{{- $urls = append $urls . -}}{{- end -}}
{{- if eq $k.kind "github_app" -}}{{- $urls = append $urls ($k.api | default "https://api.github.com") -}}{{- end -}}
{{- end -}}
{{- with $c.control -}}{{- $urls = append $urls .url -}}{{- end -}}
{{- with ($c.egress | default dict).parent -}}{{- $urls = append $urls .url -}}{{- end -}}
{{- range ($c.store | default dict).addresses -}}{{- $urls = append $urls (printf "https://%s" .) -}}{{- end -}}
{{- $all := list -}}
{{- range $urls -}}
{{- if and (contains "://" .) (not (contains "$" .)) -}}
{{- $u := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $u.host) -}}
{{- $host := regexReplaceAll ":[0-9]+$" $u.host "" | trimPrefix "[" | trimSuffix "]" -}}
{{- $all = append $all (dict "host" $host "port" ($port | default (ternary "80" "443" (eq $u.scheme "http")) | int)) -}}
{{- end -}}
{{- end -}}
{{- $forward := false -}}
{{- range include "stagedoor.listeners" . | fromJsonArray -}}
{{- if eq .kind "forward" -}}
{{- $forward = true -}}
{{- if .reportOnly -}}{{- $all = append $all (dict "host" "anything.example" "port" 0) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if $forward -}}
{{- $e := $c.egress | default dict -}}
{{- $groups := $e.hosts | default dict -}}
{{- range $e.rules -}}
{{- range .to -}}
{{- range (get $groups . | default (list .)) -}}
{{- /* An IPv6 address without brackets has no port. */ -}}
{{- $it := ternary (printf "[%s]" .) . (and (gt (len (splitList ":" .)) 2) (not (hasPrefix "[" .))) -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $it) | default "443" | int -}}
{{- $host := regexReplaceAll ":[0-9]+$" $it "" | trimPrefix "[" | trimSuffix "]" -}}
{{- /* A group that we ship has no dot, and all its hosts are public, on 443. */ -}}
{{- $host = ternary $host "group.example" (or (contains "." $host) (contains ":" $host)) -}}
{{- $all = append $all (dict "host" $host "port" $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $all }}
{{- end -}}

{{/* The same as rules of egress, in JSON. */}}
{{- define "stagedoor.egressFromConfig" -}}
{{- $v := .Values -}}
{{- $public := dict -}}
{{- $namespaces := dict -}}
{{- $blocks := dict -}}
{{- range include "stagedoor.destinations" . | fromJsonArray -}}
{{- $host := lower .host -}}
{{- $inside := regexFind "\\.[a-z0-9-]+\\.svc(\\.cluster\\.local)?\\.?$" $host -}}
{{- if or (hasPrefix "127." $host) (eq $host "localhost") (eq $host "::1") -}}
{{- else if regexMatch "^[0-9.]+$" $host -}}
{{- $_ := set $blocks (printf "%s/32 %d" $host (int .port)) (list (printf "%s/32" $host) .port) -}}
{{- else if contains ":" $host -}}
{{- $_ := set $blocks (printf "%s/128 %d" $host (int .port)) (list (printf "%s/128" $host) .port) -}}
{{- else if $inside -}}
{{- $_ := set $namespaces (index (splitList "." $inside) 1) true -}}
{{- else if not (contains "." $host) -}}
{{- $_ := set $namespaces $.Release.Namespace true -}}
{{- else -}}
{{- $_ := set $public (printf "%05d" (int .port)) .port -}}
{{- end -}}
{{- end -}}
{{- range ($v.config.egress | default dict).private -}}
{{- range .addresses -}}{{- $_ := set $blocks . (list . 0) -}}{{- end -}}
{{- end -}}

{{- $rules := list -}}
{{- range $key := keys $blocks | sortAlpha -}}
{{- $b := get $blocks $key -}}
{{- $rule := dict "to" (list (dict "ipBlock" (dict "cidr" (index $b 0)))) -}}
{{- if index $b 1 -}}{{- $_ := set $rule "ports" (list (dict "port" (index $b 1) "protocol" "TCP")) -}}{{- end -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- /* Without a port: a Service's is not that of its pods, which is what a policy goes by. */ -}}
{{- range $namespace := keys $namespaces | sortAlpha -}}
{{- $peer := dict "podSelector" dict -}}
{{- if ne $namespace $.Release.Namespace -}}
{{- $peer = dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $namespace)) -}}
{{- end -}}
{{- $rules = append $rules (dict "to" (list $peer)) -}}
{{- end -}}
{{- if $public -}}
{{- $p := $v.networkPolicy.privateRanges -}}
{{- $to := list (dict "ipBlock" (dict "cidr" "0.0.0.0/0" "except" $p.v4)) (dict "ipBlock" (dict "cidr" "::/0" "except" $p.v6)) -}}
{{- $rule := dict "to" $to -}}
{{- if not (hasKey $public "00000") -}}
{{- $ports := list -}}
{{- range $key := keys $public | sortAlpha -}}{{- $ports = append $ports (dict "port" (get $public $key) "protocol" "TCP") -}}{{- end -}}
{{- $_ := set $rule "ports" $ports -}}
{{- end -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- range (($v.config.process | default dict).name_servers) -}}
{{- $port := regexFind "[0-9]+$" . | int -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}
{{- $cidr := printf "%s/%s" $host (ternary "128" "32" (contains ":" $host)) -}}
{{- $rules = append $rules (dict "to" (list (dict "ipBlock" (dict "cidr" $cidr)))
  "ports" (list (dict "port" $port "protocol" "UDP") (dict "port" $port "protocol" "TCP"))) -}}
{{- end -}}
{{ toJson $rules }}
{{- end -}}

{{/* DNS, as a rule. */}}
{{- define "stagedoor.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dnsTo | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* All that Stagedoor may reach, as rules. */}}
{{- define "stagedoor.egress" -}}
{{ include "stagedoor.dns" . }}
{{- if .Values.networkPolicy.fromConfig }}
{{- with include "stagedoor.egressFromConfig" . | fromJsonArray }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What Backstage may reach itself, beside the gate and DNS, as rules. */}}
{{- define "stagedoor.backstageEgress" -}}
{{- with .Values.networkPolicy.backstage }}
{{- if .databaseTo }}
- to:
    {{- toYaml .databaseTo | nindent 4 }}
  ports:
    - {port: {{ .databasePort }}, protocol: TCP}
{{- end }}
{{- with .extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A peer: pods with these labels in that namespace. A dict of `labels`, `namespace` and `from`, the policy's namespace. */}}
{{- define "stagedoor.peer" -}}
podSelector:
  matchLabels:
    {{- toYaml .labels | nindent 4 }}
{{- if ne .namespace .from }}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ .namespace }}
{{- end }}
{{- end -}}
