package servicemain

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"golang.org/x/net/idna"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
)

// The flag groups. Embed what a program needs (`embed:""` in a kong struct). Every setting of the
// product stands here, so that one environment can be given to all services: a variable that
// another service reads is known everywhere, one that nobody reads is an error. Numbers and times say in
// min and max what makes sense; Parse refuses the rest. services/REFERENCE.md is made of these fields.

// LogFlags say how to log.
type LogFlags struct {
	LogLevel  string `name:"log-level" env:"DEVPILOT_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"Least level that is logged: debug, info, warn or error. As text, the line of a request that went well is debug."`
	LogFormat string `name:"log-format" env:"DEVPILOT_LOG_FORMAT" default:"auto" enum:"auto,text,json" help:"text, json, or auto: text on a terminal and JSON elsewhere."`
}

// Format resolves "auto" for the file that is logged to.
func (f LogFlags) Format(w any) logs.Format {
	if f.LogFormat != "auto" && f.LogFormat != "" {
		return logs.Format(f.LogFormat)
	}
	if file, ok := w.(*os.File); ok && isatty.IsTerminal(file.Fd()) {
		return logs.FormatText
	}
	return logs.FormatJSON
}

// OpsFlags say where /livez, /readyz and /metrics are, and how the process stops.
type OpsFlags struct {
	OpsListen  string        `name:"ops-listen" env:"DEVPILOT_OPS_LISTEN" default:"${ops_listen}" help:"Address of /livez, /readyz and /metrics."`
	Pprof      bool          `name:"pprof" env:"DEVPILOT_PPROF" help:"Serve profiles of this process (/debug/pprof) on the ops address, to whoever reaches it."`
	DrainDelay time.Duration `name:"drain-delay" env:"DEVPILOT_DRAIN_DELAY" default:"${drain_delay}" min:"0s" max:"10m" help:"How long to serve on after saying not ready, so that balancers notice."`
}

// HTTPListenFlags say where HTTP is served.
type HTTPListenFlags struct {
	Listen         string `name:"listen" env:"DEVPILOT_LISTEN" default:"${listen}" help:"Address to serve HTTP on."`
	ListenCertFile string `name:"listen-cert-file" env:"DEVPILOT_LISTEN_CERT_FILE" help:"PEM file of the certificate to serve HTTPS with, and of those between it and its authority; read again when it changes (default: plain HTTP, for a proxy on this machine or on a private network)."`
	ListenKeyFile  string `name:"listen-key-file" env:"DEVPILOT_LISTEN_KEY_FILE" help:"PEM file of the private key of --listen-cert-file."`
}

// GRPCListenFlags say where gRPC is served.
type GRPCListenFlags struct {
	GRPCListen string `name:"grpc-listen" env:"DEVPILOT_GRPC_LISTEN" default:"${grpc_listen}" help:"Address to serve gRPC on."`
}

// TLSFlags say what calls between the services are encrypted with.
type TLSFlags struct {
	TLSCertFile string `name:"tls-cert-file" env:"DEVPILOT_TLS_CERT_FILE" help:"PEM file of this service's certificate for calls between the services, whose DNS name is the service below devpilot.internal, as auth.devpilot.internal, and which is for servers and clients; it and the two below are read again when they change (devpilot certificates makes them)."`
	TLSKeyFile  string `name:"tls-key-file" env:"DEVPILOT_TLS_KEY_FILE" help:"PEM file of the private key of --tls-cert-file."`
	TLSCAFile   string `name:"tls-ca-file" env:"DEVPILOT_TLS_CA_FILE" help:"PEM file of the authorities that the other services' certificates are by; several while one takes the place of another."`
}

// PlaintextFlags say what may go over the network unencrypted.
type PlaintextFlags struct {
	AllowPlaintext []string `name:"allow-plaintext" env:"DEVPILOT_ALLOW_PLAINTEXT" help:"Connections that may leave this machine unencrypted, because something else protects the network: services (calls between the services), nats, redis. Without it a process that would make or take one does not start."`
}

// StoreFlags say where the stores are. URLs can hold passwords: they are secrets.
type StoreFlags struct {
	NATSURL             seal.Secret `name:"nats-url" env:"DEVPILOT_NATS_URL" help:"URL of NATS with JetStream, e.g. nats://127.0.0.1:4222; several are joined by commas."`
	Replicas            int         `name:"nats-replicas" env:"DEVPILOT_NATS_REPLICAS" default:"0" enum:"0,1,3,5" help:"Replicas of streams and buckets: 1, 3 or 5, or 0 for as many as NATS can hold, 1 on a single server and 3 on a cluster. Those of what exists are raised and never lowered."`
	StreamsMiB          int64       `name:"streams-mib" env:"DEVPILOT_STREAMS_MIB" default:"0" min:"256" max:"1048576" help:"What all streams of the installation (logs of deployments, deliveries, events) may take in NATS together, in MiB; records come on top. 0 is 4096, or where the program has a NATS of its own as much of that as its volume has room for. The same for every process: streams that are smaller are raised, and never lowered. A store without room for what is set is an error at the start."`
	RedisURL            seal.Secret `name:"redis-url" env:"DEVPILOT_REDIS_URL" help:"URL of Redis, e.g. redis://127.0.0.1:6379/0, or rediss://user:password@redis:6379/0 with a user of its access list, encrypted. With Sentinel redis://sentinel-1:26379/0?master_name=mymaster&addr=sentinel-2:26379 (sentinel_username and sentinel_password where the sentinels ask), with Cluster redis://node-1:6379?cluster=true&addr=node-2:6379; addr may be given several times."`
	NATSCredentialsFile string      `name:"nats-credentials-file" env:"DEVPILOT_NATS_CREDENTIALS_FILE" help:"File of the credentials that NATS knows this process by (.creds); read again for every connection, as are the files below."`
	NATSNkeyFile        string      `name:"nats-nkey-file" env:"DEVPILOT_NATS_NKEY_FILE" help:"File of the nkey seed that NATS knows this process by."`
	NATSCAFile          string      `name:"nats-ca-file" env:"DEVPILOT_NATS_CA_FILE" help:"PEM file of the authorities that the certificate of NATS is by (default: the system's). The connection is encrypted then, whatever the URL says."`
	NATSCertFile        string      `name:"nats-cert-file" env:"DEVPILOT_NATS_CERT_FILE" help:"PEM file of the certificate to show to NATS."`
	NATSKeyFile         string      `name:"nats-key-file" env:"DEVPILOT_NATS_KEY_FILE" help:"PEM file of the private key of --nats-cert-file."`
	RedisCAFile         string      `name:"redis-ca-file" env:"DEVPILOT_REDIS_CA_FILE" help:"PEM file of the authorities that the certificate of Redis is by, for a URL that begins with rediss:// (default: the system's); read again for every connection, as are the two below."`
	RedisCertFile       string      `name:"redis-cert-file" env:"DEVPILOT_REDIS_CERT_FILE" help:"PEM file of the certificate to show to Redis."`
	RedisKeyFile        string      `name:"redis-key-file" env:"DEVPILOT_REDIS_KEY_FILE" help:"PEM file of the private key of --redis-cert-file."`
}

// InstallationFlags tell installations apart that share their stores.
type InstallationFlags struct {
	Installation string `name:"installation" env:"DEVPILOT_INSTALLATION" help:"Name that everything of this installation in NATS and Redis begins with, so that several may share them: a letter and up to 30 letters, digits and hyphens, in lower case. It is decided once: under another name the stores are empty."`
}

// Name is the installation's name.
func (f InstallationFlags) Name() (stream.Installation, error) {
	name, err := stream.NewInstallation(f.Installation)
	if err != nil {
		return "", fmt.Errorf("--installation (DEVPILOT_INSTALLATION): %w", err)
	}
	return name, nil
}

// KeyFlags say where the keys are.
type KeyFlags struct {
	EncryptionKeysetFile string `name:"encryption-keyset-file" env:"DEVPILOT_ENCRYPTION_KEYSET_FILE" help:"File of the Tink keyset that seals what is stored, or a directory in which each service has one of its own, encryption-<service>.json."`
	IdentityKeyFile      string `name:"identity-key-file" env:"DEVPILOT_IDENTITY_KEY_FILE" help:"File of the keys by which the services know each other."`
}

// AuthAddrFlag and its siblings say where a service finds another one: host:port, several of them
// joined by commas, or a gRPC target that begins with dns:/// or unix:///.
type AuthAddrFlag struct {
	AuthAddr string `name:"auth-addr" env:"DEVPILOT_AUTH_ADDR" help:"Address of the auth service, e.g. auth:7001."`
}

// RepoAddrFlag is like AuthAddrFlag.
type RepoAddrFlag struct {
	RepoAddr string `name:"repo-addr" env:"DEVPILOT_REPO_ADDR" help:"Address of the repo service, e.g. repo:7002."`
}

// WebhookAddrFlag is like AuthAddrFlag.
type WebhookAddrFlag struct {
	WebhookAddr string `name:"webhook-addr" env:"DEVPILOT_WEBHOOK_ADDR" help:"Address of the webhook service, e.g. webhook:7003."`
}

// DeployerAddrFlag is like AuthAddrFlag.
type DeployerAddrFlag struct {
	DeployerAddr string `name:"deployer-addr" env:"DEVPILOT_DEPLOYER_ADDR" help:"Address of the deployer service, e.g. deployer:7004."`
}

// BitbucketFlags name the OAuth consumer and the site. Without a consumer the product runs and
// says how to make one.
type BitbucketFlags struct {
	BitbucketClientID     string      `name:"bitbucket-client-id" env:"DEVPILOT_BITBUCKET_CLIENT_ID" help:"Key of the OAuth consumer at Bitbucket."`
	BitbucketClientSecret seal.Secret `name:"bitbucket-client-secret" env:"DEVPILOT_BITBUCKET_CLIENT_SECRET" help:"Secret of the OAuth consumer at Bitbucket."`
	BitbucketSiteURL      string      `name:"bitbucket-site-url" env:"DEVPILOT_BITBUCKET_SITE_URL" default:"https://bitbucket.org" help:"Bitbucket's web site: OAuth and git."`
	BitbucketAPIURL       string      `name:"bitbucket-api-url" env:"DEVPILOT_BITBUCKET_API_URL" default:"https://api.bitbucket.org/2.0" help:"Bitbucket's REST API."`
}

// PublicFlags say how the world reaches us.
type PublicFlags struct {
	PublicURL string `name:"public-url" env:"DEVPILOT_PUBLIC_URL" help:"Address under which people and Bitbucket reach this installation; callback and webhook URLs are built from it (default: the listen address)."`
}

// URL returns the public URL without a trailing slash; where none is set it is made of the address
// that HTTP, or HTTPS, is served on.
func (f PublicFlags) URL(listen net.Addr, https bool) (string, error) {
	if f.PublicURL == "" {
		if listen == nil {
			return "", fmt.Errorf("the public URL is not set: use --public-url or DEVPILOT_PUBLIC_URL")
		}
		if https {
			return "https://" + reachable(listen), nil
		}
		return "http://" + reachable(listen), nil
	}
	return origin("--public-url (DEVPILOT_PUBLIC_URL)", "https://devpilot.example.com", f.PublicURL)
}

// origin reads an address without path, query and user, and writes it as browsers do, who compare it: an
// international name in its ASCII form (RFC 5891), in lower case, without the scheme's own port.
func origin(setting, example, text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%s must be like %s, without path, query or user", setting, example)
	}
	host := strings.ToLower(u.Hostname())
	if strings.ContainsFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }) {
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", fmt.Errorf("%s: the host name is none that a browser can open: %w", setting, err)
		}
	}
	if port := u.Port(); port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		return u.Scheme + "://" + net.JoinHostPort(host, port), nil
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host, nil
}

// reachable turns a bound address into one a browser on this machine can open.
func reachable(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	if ap.Addr().IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", ap.Port())
	}
	return ap.String()
}

// WebFlags guard the gateway's door.
type WebFlags struct {
	AllowedOrigins []string `name:"allowed-origins" env:"DEVPILOT_ALLOWED_ORIGINS" help:"Other origins whose pages may call the API with cookies, e.g. https://app.example.com."`
	TrustedProxies []string `name:"trusted-proxies" env:"DEVPILOT_TRUSTED_PROXIES" help:"Networks of proxies whose X-Forwarded-For counts, e.g. 10.0.0.0/8."`
}

// Origins returns the allowed origins as browsers write them.
func (f WebFlags) Origins() ([]string, error) {
	var list []string
	for _, text := range f.AllowedOrigins {
		o, err := origin("--allowed-origins (DEVPILOT_ALLOWED_ORIGINS)", "https://app.example.com", text)
		if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, nil
}

// SignInFlags hold what signs the first person in where no data directory holds it.
type SignInFlags struct {
	AdminToken seal.Secret `name:"admin-token" env:"DEVPILOT_ADMIN_TOKEN" help:"Token that signs the local owner in and makes sign-in codes; without one nobody can sign in."`
}

// PeopleFlags say who may sign in beside the local owner.
type PeopleFlags struct {
	IdentityProvidersFile string `name:"identity-providers-file" env:"DEVPILOT_IDENTITY_PROVIDERS_FILE" help:"YAML file of the OpenID Connect providers that sign people in, of the rules that give them roles, and of the issuers whose tokens scripts may show (services/gateway/README.md)."`
	LocalOwner            string `name:"local-owner" env:"DEVPILOT_LOCAL_OWNER" default:"on" enum:"on,off" help:"on: the admin token and one-time codes sign the local owner in; off: only the identity providers let people in, one of which needs a rule that makes somebody an owner."`
}

// DataFlags say where files are.
type DataFlags struct {
	DataDir  string `name:"data-dir" env:"DEVPILOT_DATA_DIR" default:".devpilot" help:"Directory of what must last: releases, and all-in-one's stores and keys."`
	CacheDir string `name:"cache-dir" env:"DEVPILOT_CACHE_DIR" help:"Directory of mirrors, local to this machine and rebuilt when lost (default: <data-dir>/cache)."`
	CacheMiB int64  `name:"cache-mib" env:"DEVPILOT_CACHE_MIB" default:"20480" min:"1" help:"What the mirrors may take together, in MiB; beyond it those not used for longest go."`
}

// Cache returns the cache directory.
func (f DataFlags) Cache() string {
	if f.CacheDir != "" {
		return f.CacheDir
	}
	return filepath.Join(f.DataDir, "cache")
}

// WorkerFlags say what a deployer does.
type WorkerFlags struct {
	Server  string `name:"server" env:"DEVPILOT_SERVER" default:"default" help:"Name of the server whose releases live in the data directory."`
	Workers int    `name:"workers" env:"DEVPILOT_WORKERS" default:"0" min:"0" max:"1024" help:"Deployments at a time; 0 is the number of CPUs."`
	// Lease is short in tests only: a worker on a busy machine must not be taken for a dead one.
	Lease time.Duration `name:"worker-lease" env:"DEVPILOT_WORKER_LEASE" default:"30s" min:"1s" max:"1h" hidden:"" help:"How long a worker may be silent before another takes its deployments over."`
	// DiskReserve has room for what runs when the disk gets short.
	DiskReserve int64    `name:"disk-reserve-mib" env:"DEVPILOT_DISK_RESERVE_MIB" default:"256" min:"1" max:"2147483647" help:"How much of the disk stays free, in MiB: with less, deployments wait."`
	Roles       []string `name:"roles" env:"DEVPILOT_ROLES" default:"api,worker" enum:"api,worker" help:"What this process does: api, worker or both."`
}

// Slots is the number of deployments at a time.
func (f WorkerFlags) Slots() int {
	if f.Workers > 0 {
		return f.Workers
	}
	return runtime.NumCPU()
}

// Has reports whether a role is on.
func (f WorkerFlags) Has(role string) bool { return slices.Contains(f.Roles, role) }

// HookFlags say how deployment hooks run.
type HookFlags struct {
	AllowUnsandboxedHooks bool     `name:"allow-unsandboxed-hooks" env:"DEVPILOT_ALLOW_UNSANDBOXED_HOOKS" help:"Run deployment hooks as this user where there is no sandbox; only while a single workspace has apps."`
	HookNetwork           string   `name:"hook-network" env:"DEVPILOT_HOOK_NETWORK" default:"auto" enum:"auto,internet,none" help:"What deployment hooks reach: internet (never private networks nor this machine), none, or auto: internet where slirp4netns is there."`
	HookAllow             []string `name:"hook-allow" env:"DEVPILOT_HOOK_ALLOW" help:"Private networks that deployment hooks may reach, e.g. 10.20.0.0/24."`
	HookDeny              []string `name:"hook-deny" env:"DEVPILOT_HOOK_DENY" help:"More networks that deployment hooks must not reach, e.g. 203.0.113.0/24."`
	HookReadOnly          []string `name:"hook-read-only" env:"DEVPILOT_HOOK_READ_ONLY" help:"More directories that deployment hooks see, e.g. /opt/node."`
	HookPath              string   `name:"hook-path" env:"DEVPILOT_HOOK_PATH" help:"PATH of deployment hooks (default: the system's)."`
	AppDiskMiB            int64    `name:"app-disk-mib" env:"DEVPILOT_APP_DISK_MIB" min:"-1" help:"What one app's releases and shared paths may take on the disk, in MiB, before its hooks are ended (0: a quarter of the volume; -1: all of it)."`
}

// LiveFlags say where releases are served.
type LiveFlags struct {
	LiveListen    string `name:"live-listen" env:"DEVPILOT_LIVE_LISTEN" default:"127.0.0.1:8083" empty:"none" help:"Address to serve releases on, each under a host name of its own; empty serves none."`
	LiveAdvertise string `name:"live-advertise" env:"DEVPILOT_LIVE_ADVERTISE" help:"Address at which workers of other servers reach the releases served here, e.g. 10.0.0.7:8083 (default: that of --live-listen; where that is every address of the machine, its first one)."`
	LiveURL       string `name:"live-url" env:"DEVPILOT_LIVE_URL" help:"Address below which releases have their host names, e.g. https://live.example.com (default: http://localhost with the port of --live-listen)."`
}

// ReconcileFlags say how a deployer looks for pushes whose delivery never came. The pause grows with
// the number of repositories, so that the budget for git requests is kept.
type ReconcileFlags struct {
	ReconcileInterval time.Duration `name:"reconcile-interval" env:"DEVPILOT_RECONCILE_INTERVAL" default:"30s" min:"100ms" max:"24h" help:"Least pause between two polls of a repository."`
	ReconcileGrace    time.Duration `name:"reconcile-grace" env:"DEVPILOT_RECONCILE_GRACE" default:"60s" min:"0s" max:"24h" help:"How long a delivery may be on its way before it counts as missing."`
}

// WebhookFlags say how webhooks at Bitbucket are looked after.
type WebhookFlags struct {
	WebhookSecretAge time.Duration `name:"webhook-secret-age" env:"DEVPILOT_WEBHOOK_SECRET_AGE" default:"2160h" min:"0s" max:"87600h" help:"How old the secret of a webhook becomes before Devpilot replaces it on Bitbucket; 0 means never. The one before is accepted for a day more."`
}

// EmulatorFlags start the Bitbucket emulator beside the all-in-one process, and fill the product with a story. Nothing
// else does.
type EmulatorFlags struct {
	Emulator         bool   `name:"emulator" env:"DEVPILOT_EMULATOR" help:"Start a Bitbucket emulator with sample repositories and use it in place of Bitbucket."`
	EmulatorListen   string `name:"emulator-listen" env:"DEVPILOT_EMULATOR_LISTEN" default:"localhost:8081" help:"Address of the emulator."`
	EmulatorScenario string `name:"emulator-scenario" env:"DEVPILOT_EMULATOR_SCENARIO" help:"What the emulator of --emulator starts with: sample, ten-thousand, not-admin, expired or rate-limited (default: sample)."`
	Scenario         string `name:"scenario" env:"DEVPILOT_SCENARIO" help:"Fill the product of --emulator, in a data directory of its own, for whoever builds a user interface. team: people in every role, apps and deployments in every state. Whoever reaches the emulator signs in as anybody; it must listen on this machine alone."`
	ScenarioTime     string `name:"scenario-time" env:"DEVPILOT_SCENARIO_TIME" help:"When the story of --scenario ends, e.g. 2026-03-16T09:00:00Z: the API's times are the same at each fresh start then (default: now)."`
}

// NotifyFlags say how notifications leave the installation.
type NotifyFlags struct {
	SMTPHost     string      `name:"smtp-host" env:"DEVPILOT_SMTP_HOST" help:"Mail server that sends notifications; without one there is no e-mail."`
	SMTPPort     int         `name:"smtp-port" env:"DEVPILOT_SMTP_PORT" default:"587" min:"1" max:"65535" help:"Port of the mail server."`
	SMTPUser     string      `name:"smtp-user" env:"DEVPILOT_SMTP_USER" help:"Name to sign in at the mail server with; none when empty."`
	SMTPPassword seal.Secret `name:"smtp-password" env:"DEVPILOT_SMTP_PASSWORD" help:"Password to sign in at the mail server with."`
	SMTPFrom     string      `name:"smtp-from" env:"DEVPILOT_SMTP_FROM" help:"Sender of the mails, e.g. Devpilot <devpilot@example.com>."`
	SMTPTLS      string      `name:"smtp-tls" env:"DEVPILOT_SMTP_TLS" default:"starttls" enum:"starttls,tls,none" help:"How the connection to the mail server is protected: starttls, tls from the first byte, or none (for a server on this machine, without a password)."`
	NotifyAllow  []string    `name:"notify-allow" env:"DEVPILOT_NOTIFY_ALLOW" help:"Private networks and addresses that notifications may be sent to, e.g. 10.20.0.0/24."`
}

// ActivityFlags say how long it is kept who did what.
type ActivityFlags struct {
	ActivityRetention time.Duration `name:"activity-retention" env:"DEVPILOT_ACTIVITY_RETENTION" default:"8760h" min:"24h" help:"How long the activity list reaches back, at least 24h; what was recorded before keeps the time that held then."`
}

// ProgramFlags bound what programs send.
type ProgramFlags struct {
	ProgramRequests int `name:"program-requests" env:"DEVPILOT_PROGRAM_REQUESTS" default:"600" min:"0" max:"1000000" help:"Requests that an API key, or a token of an identity provider, may send in a minute; 0 bounds nothing."`
}

// Groups lists every group of settings: their variables are known to every program.
func Groups() []any { return productFlags() }

// productFlags lists every group: their variables are known to every program.
func productFlags() []any {
	return []any{
		LogFlags{}, OpsFlags{}, HTTPListenFlags{}, GRPCListenFlags{}, TLSFlags{}, PlaintextFlags{}, StoreFlags{}, InstallationFlags{}, KeyFlags{},
		AuthAddrFlag{}, RepoAddrFlag{}, WebhookAddrFlag{}, DeployerAddrFlag{},
		BitbucketFlags{}, PublicFlags{}, WebFlags{}, SignInFlags{}, PeopleFlags{}, DataFlags{}, WorkerFlags{}, HookFlags{}, LiveFlags{}, ReconcileFlags{}, WebhookFlags{}, EmulatorFlags{}, NotifyFlags{}, ActivityFlags{}, ProgramFlags{},
	}
}
