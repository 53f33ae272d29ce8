package stream

import "github.com/nats-io/nats.go/jetstream"

// Settings are what an operator decides for all streams and buckets that are opened over one connection.
type Settings struct {
	// Installation is what all names begin with.
	Installation Installation
	// Replicas that are wished: 0 for as many as the cluster can hold, 1 on a single server and 3 on a
	// cluster (DESIGN.md#jetstream). What has more keeps them.
	Replicas int
	// Bytes are what all streams of the installation may take together; DefaultBytes when zero. What is
	// larger stays so.
	Bytes int64
	// Fitted says that Bytes were chosen by what the store has room for today (see Fitting), not by a
	// person: that a stream is larger is no news then.
	Fitted bool
	// Replication tells how many replicas they have; nil tells nobody.
	Replication *Replication
}

// SettingsOf are the settings that a JetStream carries, as a kv.Session does; none over a bare one.
func SettingsOf(js jetstream.JetStream) Settings {
	if s, ok := js.(interface{ StreamSettings() Settings }); ok {
		return s.StreamSettings()
	}
	return Settings{}
}
