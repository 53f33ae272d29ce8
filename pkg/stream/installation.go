package stream

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Installation is the name of one of several installations that share an account of NATS and a Redis. All
// its names in them begin with it: streams, buckets and consumers with "<name>_", subjects with "<name>.".
// Without a name they are as this module and its callers write them; those are called bare names here, and
// none of them begins like another installation's: a name has neither capitals nor '_'.
type Installation string

var validInstallation = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// NewInstallation checks a name; an empty one is none.
func NewInstallation(name string) (Installation, error) {
	if name != "" && !validInstallation.MatchString(name) {
		return "", fmt.Errorf("the name %q is not possible: a letter and then up to 30 letters, digits and hyphens, all in lower case", name)
	}
	return Installation(name), nil
}

// Streams of buckets begin with what makes them buckets to other tools, too.
const (
	bucketStream  = "KV_"
	bucketSubject = "$KV."
)

// Stream is the name of a stream, in NATS, that is called name in the code. Consumers are named like it.
func (i Installation) Stream(name string) string {
	if i == "" {
		return name
	}
	if bucket, ok := strings.CutPrefix(name, bucketStream); ok {
		return bucketStream + i.Stream(bucket)
	}
	return string(i) + "_" + name
}

// BareStream is the inverse of Stream; a name of another installation is not ok, as far as it can be told:
// the one without a name takes all for its own.
func (i Installation) BareStream(name string) (bare string, ok bool) {
	if i == "" {
		return name, true
	}
	if bucket, found := strings.CutPrefix(name, bucketStream); found {
		bare, ok = strings.CutPrefix(bucket, string(i)+"_")
		return bucketStream + bare, ok
	}
	return strings.CutPrefix(name, string(i)+"_")
}

// Subject is a subject or filter, in NATS, that is written so in the code.
func (i Installation) Subject(bare string) string {
	if i == "" {
		return bare
	}
	if rest, ok := strings.CutPrefix(bare, bucketSubject); ok {
		return bucketSubject + string(i) + "_" + rest
	}
	return string(i) + "." + bare
}

// Subjects is Subject of each.
func (i Installation) Subjects(bare []string) []string {
	if i == "" || bare == nil {
		return bare
	}
	out := make([]string, len(bare))
	for n, s := range bare {
		out[n] = i.Subject(s)
	}
	return out
}

// Bare is the inverse of Subject. What is not of this installation stays as it is.
func (i Installation) Bare(subject string) string {
	if i == "" {
		return subject
	}
	if rest, ok := strings.CutPrefix(subject, bucketSubject+string(i)+"_"); ok {
		return bucketSubject + rest
	}
	return strings.TrimPrefix(subject, string(i)+".")
}

// ConnectOptions give a connection its name, and have it wait for answers below its service's inbox.
func (i Installation) ConnectOptions(name, service string) []nats.Option {
	return []nats.Option{nats.Name(i.Stream(name)), nats.CustomInboxPrefix(i.Inbox(service))}
}

// Inbox is what all subjects begin with on which processes of a service wait for answers, so that NATS can be
// told to let them see no others.
func (i Installation) Inbox(service string) string { return i.Subject("_INBOX." + service) }

// message is a message as it is in NATS. The bare one is left as it is, to be published again.
func (i Installation) message(bare *nats.Msg) *nats.Msg {
	if i == "" {
		return bare
	}
	return &nats.Msg{Subject: i.Subject(bare.Subject), Header: bare.Header, Data: bare.Data}
}

// consumer is a consumer's configuration as it is in NATS.
func (i Installation) consumer(bare jetstream.ConsumerConfig) jetstream.ConsumerConfig {
	bare.Durable = i.Stream(bare.Durable)
	bare.FilterSubjects = i.Subjects(bare.FilterSubjects)
	return bare
}

// InstallationOf is the installation whose names a JetStream carries.
func InstallationOf(js jetstream.JetStream) Installation { return SettingsOf(js).Installation }
