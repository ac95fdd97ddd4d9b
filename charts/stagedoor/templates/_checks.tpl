{{/* What cannot work, each as one sentence. Called once, by checks.yaml, which makes no object. */}}
{{- define "stagedoor.problems" -}}
{{- $v := .Values -}}
{{- $own := list "edge" "egress" -}}
{{- $found := list -}}

{{- if not $v.image.repository -}}
{{- $found = append $found "image.repository is empty: no image is published; build and push one (image/README.md) and name it" -}}
{{- end -}}

{{- $listeners := include "stagedoor.listeners" . | fromJsonArray -}}
{{- $entrances := include "stagedoor.entrances" . | fromJsonArray -}}
{{- $ports := dict -}}
{{- range $listeners -}}
{{- if not (regexMatch ":[0-9]+$" (get (get $v.config.listeners .name) "address")) -}}
{{- $found = append $found (printf "config.listeners.%s.address: the chart must know the port; write it in digits" .name) -}}
{{- else if hasKey $ports (toString .port) -}}
{{- $found = append $found (printf "config.listeners.%s.address: port %d is already used by listener `%s`; a pod can use each port once" .name (int .port) (get $ports (toString .port))) -}}
{{- end -}}
{{- $_ := set $ports (toString .port) .name -}}
{{- if and (eq $v.mode "sidecar") (eq .kind "forward") (not .loopback) -}}
{{- $found = append $found (printf "config.listeners.%s.address: in mode sidecar a forward listener belongs on loopback, because other pods could call through it; write 127.0.0.1:%d" .name (int .port)) -}}
{{- end -}}
{{- end -}}

{{- $status := list -}}
{{- range $listeners -}}{{- if and (eq .kind "status") (not .loopback) -}}{{- $status = append $status (printf "`%s`" .name) -}}{{- end -}}{{- end -}}
{{- if gt (len $status) 1 -}}
{{- $found = append $found (printf "config.listeners: %s are both status listeners that pods can reach; keep one" (join " and " $status)) -}}
{{- end -}}
{{- if not $status -}}
{{- $found = append $found "config.listeners: no status listener that the kubelet can reach for its probes; write `status: {kind: status, address: \"0.0.0.0:9902\"}`" -}}
{{- end -}}
{{- $kinds := dict -}}
{{- range $entrances -}}{{- $_ := set $kinds .kind true -}}{{- end -}}
{{- if and (eq $v.mode "edge") (not $kinds.reverse) -}}
{{- $found = append $found "config.listeners: mode edge needs a listener of kind reverse that other pods can reach, for example on 0.0.0.0:8443" -}}
{{- end -}}
{{- if and (eq $v.mode "egress") (not $kinds.forward) -}}
{{- $found = append $found "config.listeners: mode egress needs a listener of kind forward that other pods can reach, for example on 0.0.0.0:3128" -}}
{{- end -}}
{{- $others := 0 -}}
{{- range $listeners -}}{{- if not (has .kind (list "admin" "status")) -}}{{- $others = add $others 1 -}}{{- end -}}{{- end -}}
{{- if and (eq $v.mode "sidecar") (eq $others 0) -}}
{{- $found = append $found "config.listeners: only listeners for operators and probes; add one of kind forward on 127.0.0.1:3128, or one of kind reverse" -}}
{{- end -}}
{{- with $v.backstage.forwardListener -}}
{{- if not (include "stagedoor.forward" $ | fromJson) -}}
{{- $found = append $found (printf "backstage.forwardListener: `%s` is not a forward listener that Backstage can reach" .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $v.service.ports -}}
{{- $is := false -}}
{{- range $entrances -}}{{- if eq .name $name -}}{{- $is = true -}}{{- end -}}{{- end -}}
{{- if not $is -}}
{{- $found = append $found (printf "service.ports.%s: no listener of that name can be reached by other pods" $name) -}}
{{- end -}}
{{- end -}}

{{- $p := $v.config.process | default dict -}}
{{- $drain := printf "%v %v" ($p.drain_delay | default "5s") ($p.drain_timeout | default "20s") -}}
{{- $needed := add (include "stagedoor.milliseconds" $drain | trim | int64) 2000 -}}
{{- if le (mul ($v.terminationGracePeriodSeconds | int64) 1000) $needed -}}
{{- $found = append $found (printf "terminationGracePeriodSeconds: %d s is too short: config.process drains for %s and needs 2 s more; write %d, or drain for less" (int64 $v.terminationGracePeriodSeconds) ($drain | replace " " " + ") (add 1 (div $needed 1000))) -}}
{{- end -}}

{{- $folder := include "stagedoor.auditFolder" . | trim -}}
{{- if and $folder (ne $folder "/var/lib/stagedoor/audit") -}}
{{- $found = append $found (printf "config.audit.directory: `%s` is not a volume, and the root file system is read-only; write /var/lib/stagedoor/audit" $folder) -}}
{{- end -}}
{{- if and $v.audit.persistence.enabled (not $folder) -}}
{{- $found = append $found "audit.persistence is enabled, but records go to standard output; write config.audit.directory: /var/lib/stagedoor/audit" -}}
{{- end -}}
{{- if and $v.audit.persistence.enabled (eq $v.mode "sidecar") (not $v.audit.persistence.existingClaim) -}}
{{- $found = append $found "audit.persistence.existingClaim is empty: in mode sidecar the volume is in Backstage's pod; name a claim that only this replica mounts" -}}
{{- end -}}
{{- if and $v.audit.persistence.existingClaim (ne $v.mode "sidecar") -}}
{{- $found = append $found "audit.persistence.existingClaim is for mode sidecar; in other modes each replica has its own claim" -}}
{{- end -}}

{{- $text := toJson $v.config -}}
{{- $tls := include "stagedoor.tlsSecret" . | trim -}}
{{- if and $v.tls.existingSecret $v.tls.certManager.enabled -}}
{{- $found = append $found "tls: existingSecret and certManager are two sources of one Secret; choose one" -}}
{{- end -}}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef.name) -}}
{{- $found = append $found "tls.certManager.issuerRef.name is empty: name the Issuer or ClusterIssuer" -}}
{{- end -}}
{{- if and (contains "/etc/stagedoor/tls/" $text) (not $tls) -}}
{{- $found = append $found "config names files in /etc/stagedoor/tls, but no Secret is mounted there; set tls.existingSecret, or tls.certManager.enabled" -}}
{{- end -}}
{{- if and $tls (not (contains "/etc/stagedoor/tls/" $text)) -}}
{{- $found = append $found "tls has a Secret, but config uses no file from it; write `tls: {certificates: [{cert: /etc/stagedoor/tls/tls.crt, key: /etc/stagedoor/tls/tls.key}]}` in a listener" -}}
{{- end -}}
{{- $missing := dict -}}
{{- range regexFindAll "/run/secrets/[^/\"]+" $text -1 -}}
{{- $name := base . -}}
{{- if and (not (hasKey $v.secrets $name)) (not (hasKey $missing $name)) -}}
{{- $_ := set $missing $name true -}}
{{- $found = append $found (printf "config names files in /run/secrets/%s, but there is no secrets.%s; write `secrets: {%s: {existingSecret: NAME}}`" $name $name $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $secret := $v.secrets -}}
{{- if and $secret.externalSecret (not $v.externalSecrets.secretStoreRef.name) -}}
{{- $found = append $found (printf "secrets.%s.externalSecret needs externalSecrets.secretStoreRef.name: name the SecretStore" $name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $v.extraFiles "stagedoor.yaml" -}}
{{- $found = append $found "extraFiles: `stagedoor.yaml` is generated from config; choose another name" -}}
{{- end -}}

{{- if and (eq $v.mode "sidecar") (ne (include "stagedoor.backstageNamespace" .) .Release.Namespace) -}}
{{- $found = append $found (printf "backstage.namespace: in mode sidecar the ConfigMap must be where Backstage is; install into namespace %s" $v.backstage.namespace) -}}
{{- end -}}
{{- if has $v.mode $own -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- $found = append $found (printf "autoscaling: minReplicas %d is more than maxReplicas %d" (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and $v.pdb.create $v.pdb.minAvailable $v.pdb.maxUnavailable -}}
{{- $found = append $found "pdb: minAvailable and maxUnavailable exclude each other; set one to \"\"" -}}
{{- end -}}
{{- end -}}
{{- join "\n" $found -}}
{{- end -}}
