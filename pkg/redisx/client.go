package redisx

import (
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// CallTimeout bounds every command, its connection and one retry included. On a cluster it bounds what
	// one node takes, and a command, which may be sent on to another node, twice that.
	CallTimeout = 400 * time.Millisecond
	// findTimeout is how long the sentinels have to tell where Redis is now. A command waits for it no
	// longer than for others; the connection is for the next one. It leaves time for a sentinel that takes connections and never answers.
	findTimeout = 3 * time.Second
	// mapAge is how old what is known of a cluster's nodes may be: a node that took another's place is found so late at most.
	mapAge = 2 * time.Second
)

// Connect makes a client for a URL as Parse takes it. It does not connect yet: Redis may come
// later, or never. Every command through the client is bounded by CallTimeout, whatever its
// context, and fails at once while Redis is known to be down.
func Connect(url string) (redis.UniversalClient, error) {
	return connect(url, CallTimeout, Security{})
}

// ConnectSecure is Connect with files, and with what sentinels and clusters may send it to.
func ConnectSecure(url string, security Security) (redis.UniversalClient, error) {
	return connect(url, CallTimeout, security)
}

// ConnectWithin is Connect with another bound of every command: for tests, on machines where an answer
// of a Redis that is well may take longer.
func ConnectWithin(url string, callTimeout time.Duration) (redis.UniversalClient, error) {
	return connect(url, callTimeout, Security{})
}

func connect(url string, callTimeout time.Duration, security Security) (redis.UniversalClient, error) {
	target, err := Parse(url)
	if err != nil {
		return nil, err
	}
	opts := target.universal()
	dialTimeout := callTimeout * 3 / 4 // leaves time for the command itself
	if err := security.apply(target, opts, dialTimeout); err != nil {
		return nil, err
	}
	opts.DialTimeout = dialTimeout
	opts.ReadTimeout = callTimeout
	opts.WriteTimeout = callTimeout
	opts.PoolTimeout = callTimeout
	opts.ContextTimeoutEnabled = true
	opts.MaxRetries = 1 // a pooled connection to a Redis that was restarted
	opts.DialerRetries = 1
	opts.MinRetryBackoff = 5 * time.Millisecond
	opts.MaxRetryBackoff = 20 * time.Millisecond
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	// go-redis writes to standard error by itself; what matters of it is in the errors we return.
	logging.Disable()
	switch target.Mode {
	case ModeSentinel:
		return sentinel(opts, callTimeout), nil
	case ModeCluster:
		return cluster(opts, callTimeout), nil
	case ModeServer:
	}
	simple := opts.Simple()
	simple.Network = target.options.Network
	c := redis.NewClient(simple)
	c.AddHook(newCircuit(callTimeout))
	return c, nil
}

// sentinel follows the server that the sentinels name.
func sentinel(opts *redis.UniversalOptions, callTimeout time.Duration) redis.UniversalClient {
	opts.DialTimeout = max(findTimeout, callTimeout)
	failover := opts.Failover()
	c := redis.NewFailoverClient(failover)
	c.AddHook(finding{master: opts.MasterName})
	c.AddHook(newCircuit(callTimeout))
	return c
}

// cluster asks the node that has the key. Each node has a circuit of its own: one that is away takes its
// keys with it, and no others.
func cluster(opts *redis.UniversalOptions, callTimeout time.Duration) redis.UniversalClient {
	opts.MaxRetries = -1 // the client of the cluster tries again
	spread := opts.Cluster()
	spread.ClusterStateReloadInterval = mapAge
	// A command goes where its key says: nothing of what Devpilot asks has keys of several nodes, and the
	// user of an access list need not be let ask what commands there are.
	spread.DisableRoutingPolicies = true
	spread.NewClient = func(opt *redis.Options) *redis.Client {
		node := redis.NewClient(opt)
		node.AddHook(newCircuit(callTimeout))
		return node
	}
	c := redis.NewClusterClient(spread)
	c.AddHook(bound{2 * callTimeout})
	return c
}
