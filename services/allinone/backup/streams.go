package backup

import (
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
)

// streams are the bare names of all streams of an installation, in the order in which a backup reads them. Each may
// tell of what comes after it, and nothing of what came before: a position says what was handled, an inventory what
// there is, a lane what its records have, a message that is gone from a queue what it has led to. So what is read later
// is at most newer than it has to be.
func streams() []string {
	return slices.Concat(
		buckets("auth-inventory", "gateway-inventory", "webhook-inventory", "deployer-inventory"),
		buckets("webhook-positions", "deployer-positions"),
		[]string{stream.EventsStream}, // with the positions of those who follow it
		[]string{stream.InboxStream, stream.PushesStream, stream.DeadLettersStream},
		buckets("webhook-ledgers", "webhook-webhooks", "webhook-index", "webhook-workspaces"),
		buckets("deployer-requests", "deployer-apps", "deployer-repositories", "deployer-connections", "deployer-codeconfigs"),
		buckets("deployer-lanes", "deployer-seen", "deployer-due"),
		[]string{stream.WorkStream},
		buckets("deployer-deployments", "deployer-statuses", "deployer-reconcile", "deployer-servers", "deployer-workers"),
		[]string{stream.OutcomesStream},
		buckets("webhook-deliveries", "webhook-pages", "webhook-refused"),
		[]string{stream.LogsStream},
		buckets("DEVPILOT_AUTH_NARROWINGS", "DEVPILOT_AUTH_INTEGRATIONS", "DEVPILOT_AUTH_SCHEDULES"),
		buckets("gateway_proofs", "gateway_api_key_lists", "gateway_api_keys", "gateway_deletions", "gateway_members", "gateway_teams", "gateway_accounts", "gateway_workspaces"),
		buckets("gateway_notification_streaks", "gateway_notification_queues", "gateway_notification_targets"),
		buckets("gateway_activity_counters", "gateway_activity", "gateway_short_lived"),
		buckets(installation.Bucket),
	)
}

// passing are streams that hold nothing to be kept: what tells whether a store takes writes.
func passing() []string { return []string{engine.CanaryStream, installation.RestoreStream} }

func buckets(names ...string) []string {
	for i, name := range names {
		names[i] = kv.StreamName(name)
	}
	return names
}

// isBucket tells a bucket's stream: of its messages only the last of each subject counts.
func isBucket(bare string) bool { return strings.HasPrefix(bare, kv.StreamName("")) }
