{{- define "devpilot.name" -}}
{{- if contains "devpilot" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-devpilot" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "devpilot.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "devpilot.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- /* What never changes of a component. It is given root and component. */ -}}
{{- define "devpilot.selector" -}}
app.kubernetes.io/name: devpilot
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "devpilot.labels" -}}
app.kubernetes.io/name: devpilot
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: devpilot
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The variable of a flag, from its name. */ -}}
{{- define "devpilot.variable" -}}
DEVPILOT_{{ . | upper | replace "-" "_" }}
{{- end }}

{{- define "devpilot.value" -}}
{{- if kindIs "slice" . }}{{ join "," . }}{{ else if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- /* Components that are equal replicas: service is the program, ports as in services/REFERENCE.md. */ -}}
{{- define "devpilot.components" -}}
auth: {service: auth, grpc: 7001, ops: 7101}
repo: {service: repo, grpc: 7002, ops: 7102}
webhook: {service: webhook, http: 8082, grpc: 7003, ops: 7103}
deployer: {service: deployer, grpc: 7004, ops: 7104}
gateway: {service: gateway, http: 8080, ops: 7105}
{{- end }}

{{- define "devpilot.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: {{ .seccomp }}}
{{- end }}

{{- define "devpilot.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector: {matchLabels: {{ include "devpilot.selector" . | fromYaml | toJson }}}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector: {matchLabels: {{ include "devpilot.selector" . | fromYaml | toJson }}}
{{- end }}

{{- /* Probes ask the ops address; one that starts waits for its stores as long as they need. */ -}}
{{- define "devpilot.probes" -}}
startupProbe: {httpGet: {path: /livez, port: ops}, periodSeconds: 2, failureThreshold: 60}
livenessProbe: {httpGet: {path: /livez, port: ops}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
readinessProbe: {httpGet: {path: /readyz, port: ops}, periodSeconds: 3, timeoutSeconds: 5, failureThreshold: 2}
{{- end }}

{{- /* The user of NATS that a pod is; empty for who keeps nothing there. */ -}}
{{- define "devpilot.natsUser" -}}
{{- if eq .service "deployer" }}deployer-{{ hasPrefix "worker" .component | ternary "worker" "api" }}{{ else if ne .service "repo" }}{{ .service }}{{ end }}
{{- end }}

{{- /* What every container is told; service, config and root are given. */ -}}
{{- define "devpilot.env" -}}
{{- $s := .root.Values.secrets -}}
- {name: DEVPILOT_ENCRYPTION_KEYSET_FILE, value: /etc/devpilot/encryption.json}
- {name: DEVPILOT_IDENTITY_KEY_FILE, value: /etc/devpilot/identity.json}
{{- if .root.Values.tls.enabled }}
- {name: DEVPILOT_TLS_CERT_FILE, value: /etc/devpilot/tls/tls.crt}
- {name: DEVPILOT_TLS_KEY_FILE, value: /etc/devpilot/tls/tls.key}
- {name: DEVPILOT_TLS_CA_FILE, value: /etc/devpilot/tls/ca.crt}
{{- end }}
{{- with .root.Values.tls.plaintext }}
- {name: DEVPILOT_ALLOW_PLAINTEXT, value: {{ join "," . | quote }}}
{{- end }}
{{- with index (include "devpilot.components" . | fromYaml) .service }}
{{- if .grpc }}
- {name: DEVPILOT_GRPC_LISTEN, value: ":{{ .grpc }}"}
{{- end }}
- {name: DEVPILOT_OPS_LISTEN, value: ":{{ .ops }}"}
{{- end }}
{{- if $s.natsUrl.name }}
- {name: DEVPILOT_NATS_URL_FILE, value: /etc/devpilot/nats-url}
{{- else }}
- {name: DEVPILOT_NATS_URL, value: {{ .root.Values.nats.url | quote }}}
{{- end }}
{{- if and $s.natsUsers.name (include "devpilot.natsUser" .) }}
- {name: DEVPILOT_NATS_NKEY_FILE, value: /etc/devpilot/nats.nk}
{{- end }}
{{- if $s.redisUrl.name }}
- {name: DEVPILOT_REDIS_URL_FILE, value: /etc/devpilot/redis-url}
{{- else }}
- {name: DEVPILOT_REDIS_URL, value: {{ .root.Values.redis.url | quote }}}
{{- end }}
{{- range $name, $c := include "devpilot.components" . | fromYaml }}
{{- if and $c.grpc (ne $name "gateway") }}
- {name: DEVPILOT_{{ upper $name }}_ADDR, value: "{{ include "devpilot.name" $.root }}-{{ $name }}-grpc:{{ $c.grpc }}"}
{{- end }}
{{- end }}
{{- if and (eq .service "auth") $s.bitbucketClientSecret.name }}
- {name: DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE, value: /etc/devpilot/bitbucket-client-secret}
{{- end }}
{{- if eq .service "gateway" }}
- {name: DEVPILOT_LISTEN, value: ":8080"}
{{- if $s.adminToken.name }}
- {name: DEVPILOT_ADMIN_TOKEN_FILE, value: /etc/devpilot/admin.token}
{{- end }}
{{- if $s.smtpPassword.name }}
- {name: DEVPILOT_SMTP_PASSWORD_FILE, value: /etc/devpilot/smtp-password}
{{- end }}
{{- if $s.identityProviders.name }}
- {name: DEVPILOT_IDENTITY_PROVIDERS_FILE, value: /etc/devpilot/identity-providers.yaml}
{{- end }}
{{- end }}
{{- if eq .service "deployer" }}
{{- if .root.Values.live.enabled }}
- {name: DEVPILOT_LIVE_LISTEN, value: ":8083"}
- {name: DEVPILOT_LIVE_URL, value: {{ .root.Values.live.url | quote }}}
{{- else }}
- {name: DEVPILOT_LIVE_LISTEN, value: ""}
{{- end }}
{{- end }}
{{- range $flag, $value := .config }}
- {name: {{ include "devpilot.variable" $flag }}, value: {{ include "devpilot.value" $value | quote }}}
{{- end }}
{{- end }}

{{- /* What a pod is given of the Secrets, and no more. */ -}}
{{- define "devpilot.secrets" -}}
{{- $s := .root.Values.secrets -}}
- secret: {name: {{ $s.encryption.name }}, items: [{key: {{ $s.encryption.key | default (printf "encryption-%s.json" .service) }}, path: encryption.json}]}
- secret: {name: {{ $s.identity.name }}, items: [{key: identity-{{ .service }}.json, path: identity.json}]}
{{- if .root.Values.tls.enabled }}
- secret: {name: {{ .root.Values.tls.secret }}-{{ .service }}, items: [{key: tls.crt, path: tls/tls.crt}, {key: tls.key, path: tls/tls.key}, {key: ca.crt, path: tls/ca.crt}]}
{{- end }}
{{- if $s.natsUrl.name }}
- secret: {name: {{ $s.natsUrl.name }}, items: [{key: {{ $s.natsUrl.key }}, path: nats-url}]}
{{- end }}
{{- if $s.natsUsers.name }}
{{- with include "devpilot.natsUser" . }}
- secret: {name: {{ $s.natsUsers.name }}, items: [{key: nats-{{ . }}.nk, path: nats.nk}]}
{{- end }}
{{- end }}
{{- if $s.redisUrl.name }}
- secret: {name: {{ $s.redisUrl.name }}, items: [{key: {{ $s.redisUrl.key }}, path: redis-url}]}
{{- end }}
{{- if $s.stores.name }}
- secret: {name: {{ $s.stores.name }}}
{{- end }}
{{- if and (eq .service "auth") $s.bitbucketClientSecret.name }}
- secret: {name: {{ $s.bitbucketClientSecret.name }}, items: [{key: {{ $s.bitbucketClientSecret.key }}, path: bitbucket-client-secret}]}
{{- end }}
{{- if eq .service "gateway" }}
{{- if $s.adminToken.name }}
- secret: {name: {{ $s.adminToken.name }}, items: [{key: {{ $s.adminToken.key }}, path: admin.token}]}
{{- end }}
{{- if $s.smtpPassword.name }}
- secret: {name: {{ $s.smtpPassword.name }}, items: [{key: {{ $s.smtpPassword.key }}, path: smtp-password}]}
{{- end }}
{{- if $s.identityProviders.name }}
- secret: {name: {{ $s.identityProviders.name }}, items: [{key: {{ $s.identityProviders.key }}, path: identity-providers.yaml}]}
{{- end }}
{{- end }}
{{- end }}

{{- define "devpilot.image" -}}
{{ .root.Values.image.prefix }}devpilot-{{ .service }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "devpilot.pod" -}}
serviceAccountName: {{ include "devpilot.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: [{{ range $i, $n := . }}{{ if $i }}, {{ end }}{name: {{ $n }}}{{ end }}]
{{- end }}
terminationGracePeriodSeconds: 120
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints: {{- include "devpilot.spread" . | nindent 2 }}
{{- end }}
