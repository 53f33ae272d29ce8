// Package verdict has the words for what comes of a push, as metrics count it. It depends on nothing.
package verdict

// What comes of a push for one app. A push that is Deciding is counted again when a worker has decided.
const (
	Deploys  = "deploys"  // it made a deployment
	Ignored  = "ignored"  // a rule, a setting, or that nobody watches its branch turned it away
	Repeated = "repeated" // it was decided about before
	Deciding = "deciding" // a worker reads the repository first
)

// Who decided.
const (
	Delivery = "delivery" // the router of push events, at once
	Worker   = "worker"   // a worker that read the repository
	Poll     = "poll"     // the reconciler, of a push that no delivery told of
)
