package redisx

import (
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/seal"
)

// Mode is how Redis is run.
type Mode string

// The modes.
const (
	ModeServer   Mode = "server"   // one server
	ModeSentinel Mode = "sentinel" // one server of several, which sentinels name
	ModeCluster  Mode = "cluster"  // servers that share the keys
)

// Parameters of a URL that are ours; the others are go-redis'.
const (
	paramMaster           = "master_name"
	paramAddress          = "addr"
	paramCluster          = "cluster"
	paramSentinelUser     = "sentinel_username"
	paramSentinelPassword = "sentinel_password"
)

const (
	portServer   = "6379"
	portSentinel = "26379"
)

// What may be wrong with a URL. None of it quotes the URL, which may hold a password.
var (
	errURL       = errors.New("redisx: the Redis URL is not valid; it looks like redis://host:6379/0, with Sentinel like redis://sentinel-1:26379/0?master_name=mymaster&addr=sentinel-2:26379&addr=sentinel-3:26379, with Cluster like redis://node-1:6379?cluster=true&addr=node-2:6379&addr=node-3:6379")
	errBoth      = errors.New("redisx: the Redis URL has master_name, which is for Sentinel, and cluster=true: leave one out")
	errNumber    = errors.New("redisx: the Redis URL names a database and a cluster; a cluster has no others than 0: leave the number out")
	errAddress   = errors.New("redisx: addr in the Redis URL is not the host and port of one server more, as in addr=host:6379; it may be given several times")
	errCluster   = errors.New("redisx: cluster in the Redis URL is true or false")
	errUserPlace = errors.New("redisx: username and password in the Redis URL are not known: user and password of Redis stand before the host, as in redis://user:password@host:6379, and those of the sentinels are sentinel_username and sentinel_password")
	errSentinel  = errors.New("redisx: the Redis URL has a user or a password of sentinels and no master_name, the name by which they know Redis")
	errSocket    = errors.New("redisx: a Redis URL with master_name, addr or cluster begins with redis:// or rediss://")
)

// Target is what a URL names. It is immutable.
type Target struct {
	Mode Mode
	// Addresses are host and port of the server, of the sentinels, or of the nodes that are asked for the
	// others; empty for a socket of this machine.
	Addresses []string
	// Master is the name by which the sentinels know the server; empty in other modes.
	Master string
	// Encrypted tells whether connections are, those to what the sentinels or nodes name too.
	Encrypted bool

	options          *redis.Options // user, password, database and what else go-redis reads in a URL
	sentinelUser     string
	sentinelPassword seal.Secret
}

// Parse reads a URL. What stands before the host is the user and password of Redis, in each mode.
//
//	redis://user:password@host:6379/0                    one server; rediss:// encrypts, unix:// is a socket
//	redis://…@sentinel-1:26379/0?master_name=mymaster    Sentinel: addr=… for each sentinel more,
//	                                                     sentinel_username=… and sentinel_password=… where they have one
//	redis://…@node-1:6379?cluster=true                   Cluster: addr=… for each node that is asked for the others;
//	                                                     with an addr and no master_name, cluster=true may be left out
//
// The error is a sentence without what is in the URL.
func Parse(text string) (Target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Target{}, errURL
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Target{}, errURL
	}
	t := Target{
		Mode: ModeServer, Master: query.Get(paramMaster), Encrypted: u.Scheme == "rediss",
		sentinelUser: query.Get(paramSentinelUser), sentinelPassword: seal.NewSecret(query.Get(paramSentinelPassword)),
	}
	more := query[paramAddress]
	if err := t.choose(u, query); err != nil {
		return Target{}, err
	}
	for _, ours := range []string{paramMaster, paramAddress, paramCluster, paramSentinelUser, paramSentinelPassword} {
		query.Del(ours)
	}
	rest := *u
	rest.RawQuery = query.Encode()
	if t.options, err = redis.ParseURL(rest.String()); err != nil {
		return Target{}, errURL // its text may quote the URL
	}
	if t.Mode == ModeCluster && t.options.DB != 0 {
		return Target{}, errNumber
	}
	if u.Scheme == "unix" {
		return t, nil
	}
	t.Addresses = []string{net.JoinHostPort(hostOf(t.options.Addr), portOf(u, t.Mode))}
	for _, address := range more {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return Target{}, errAddress
		}
		if !slices.Contains(t.Addresses, address) {
			t.Addresses = append(t.Addresses, address)
		}
	}
	return t, nil
}

// choose finds the mode.
func (t *Target) choose(u *url.URL, query url.Values) error {
	spread := query.Has(paramAddress)
	if given := query.Get(paramCluster); given != "" {
		asked, err := strconv.ParseBool(given)
		if err != nil || !asked && spread && t.Master == "" {
			return errCluster
		}
		spread = spread || asked
		if asked && t.Master != "" {
			return errBoth
		}
	}
	switch {
	case query.Has("username") || query.Has("password"):
		return errUserPlace
	case t.Master != "":
		t.Mode = ModeSentinel
	case t.sentinelUser != "" || !t.sentinelPassword.IsZero():
		return errSentinel
	case spread:
		t.Mode = ModeCluster
	}
	if t.Mode != ModeServer && !strings.HasPrefix(u.Scheme, "redis") {
		return errSocket
	}
	return nil
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

func portOf(u *url.URL, mode Mode) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case mode == ModeSentinel:
		return portSentinel
	}
	return portServer
}

// universal are the options that all modes have.
func (t Target) universal() *redis.UniversalOptions {
	o := t.options
	addresses := t.Addresses
	if len(addresses) == 0 {
		addresses = []string{o.Addr}
	}
	return &redis.UniversalOptions{
		Addrs: slices.Clone(addresses), MasterName: t.Master, SentinelUsername: t.sentinelUser, SentinelPassword: t.sentinelPassword.Reveal(),
		IsClusterMode: t.Mode == ModeCluster, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		ClientName: o.ClientName, Protocol: o.Protocol,
		PoolFIFO: o.PoolFIFO, PoolSize: o.PoolSize, MinIdleConns: o.MinIdleConns, MaxIdleConns: o.MaxIdleConns, MaxActiveConns: o.MaxActiveConns,
		MaxConcurrentDials: o.MaxConcurrentDials, ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime, ConnMaxLifetimeJitter: o.ConnMaxLifetimeJitter,
		PipelinePoolSize: o.PipelinePoolSize, PipelineReadBufferSize: o.PipelineReadBufferSize, PipelineWriteBufferSize: o.PipelineWriteBufferSize,
	}
}
