package inbox

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
)

// The stream that deliveries are kept in, and its subject.
const (
	Stream  = stream.InboxStream
	Subject = "devpilot.inbox.v1"
)

// KeptFor is how long a body is kept, for replays and for admins to read.
const KeptFor = 7 * 24 * time.Hour

// Definition is the stream's settings. When it is full it refuses new deliveries, which the ingress
// answers with 503, rather than dropping old ones unread. Nobody modifies it.
var Definition = stream.Definition{Version: 1, Config: jetstream.StreamConfig{
	Name:        Stream,
	Description: "verified deliveries of Bitbucket, as received",
	Subjects:    []string{Subject},
	Retention:   jetstream.LimitsPolicy,
	Storage:     jetstream.FileStorage,
	Discard:     jetstream.DiscardNew,
	MaxAge:      KeptFor,
	Duplicates:  2 * time.Minute,
}}
