package stream

import (
	"fmt"
	"slices"
	"strings"
)

// Access is what a service does in NATS, by bare names: the one place from which its permissions come. It stands
// beside the service's other properties, and a test fails where it does not name what the service's code opens.
type Access struct {
	// Buckets are the service's own: it makes them and does everything with their records.
	Buckets []string
	// Streams are those that it makes sure of, and what it does with each beyond that.
	Streams []Usage
	// Looks are streams that it only looks for: whether they are there.
	Looks []string
	// Answers are subjects of requests that it answers, to a process of the same service.
	Answers []string
	// Asks are subjects that it sends such requests to.
	Asks []string
}

// Usage is what a service does with a stream.
type Usage struct {
	Stream string
	// Publishes are subjects of messages that it stores there.
	Publishes []string
	// Consumers are those that it makes and takes messages from: names, or "*" for names that are made up.
	Consumers []string
	// Reads says that it reads single messages, Purges that it deletes those that are too old.
	Reads, Purges bool
}

// Permissions are the subjects that a user of NATS may publish and subscribe to.
type Permissions struct{ Publish, Subscribe []string }

// And is what a process does that does the work of both.
func (a Access) And(b Access) Access {
	return Access{
		Buckets: slices.Concat(a.Buckets, b.Buckets), Streams: slices.Concat(a.Streams, b.Streams), Looks: slices.Concat(a.Looks, b.Looks),
		Answers: slices.Concat(a.Answers, b.Answers), Asks: slices.Concat(a.Asks, b.Asks),
	}
}

// What every process asks of NATS for itself: about its account, and about its own permissions (devpilot doctor).
const (
	accountInfo = "$JS.API.INFO"
	userInfo    = "$SYS.REQ.USER.INFO"
)

// Permissions are what a process that does all of a needs in an installation, sorted: the subjects of its
// streams and buckets, JetStream's for these, and answers below the service's own inbox, which no
// other service's user may listen to.
func (a Access) Permissions(i Installation, service string) Permissions {
	p := Permissions{Publish: []string{accountInfo, userInfo}, Subscribe: []string{i.Inbox(service) + ".>"}}
	for _, bucket := range a.Buckets {
		p.bucket(i, bucket)
	}
	consumes := len(a.Buckets) > 0 // the relays of its buckets do
	for _, s := range a.Streams {
		p.stream(i, s)
		consumes = consumes || len(s.Consumers) > 0
	}
	if consumes {
		p.stream(i, Usage{Stream: DeadLettersStream, Publishes: []string{AllDeadLetters}})
	}
	for _, name := range a.Looks {
		p.Publish = append(p.Publish, "$JS.API.STREAM.INFO."+i.Stream(name))
	}
	p.Publish = append(p.Publish, i.Subjects(a.Asks)...)
	if len(a.Answers) > 0 {
		p.Subscribe = append(p.Subscribe, i.Subjects(a.Answers)...)
		p.Publish = append(p.Publish, i.Inbox(service)+".>")
	}
	slices.Sort(p.Publish)
	slices.Sort(p.Subscribe)
	p.Publish, p.Subscribe = slices.Compact(p.Publish), slices.Compact(p.Subscribe)
	return p
}

// Operator is Permissions for people's tools (devpilot doctor, accept-loss, backup, restore and servers): all that the services may, and to list
// streams, to make and delete those that measure how much room there is or that a restore is not whole, to read every stream with its
// consumers, and to make it from a backup. NATS knows no patterns of parts of a name: in an account with others it may make and delete
// their streams too.
func (a Access) Operator(i Installation, service string) Permissions {
	p := a.Permissions(i, service)
	for _, call := range []string{"STREAM.NAMES", "STREAM.LIST", "STREAM.CREATE.*", "STREAM.DELETE.*"} {
		p.Publish = append(p.Publish, "$JS.API."+call)
	}
	p.Publish = append(p.Publish, "$JS.SNAPSHOT.RESTORE.>") // what is sent of an archive; its stream is named before
	for _, bucket := range a.Buckets {
		p.backup(i, bucketStream+bucket)
	}
	for _, s := range append([]Usage{{Stream: DeadLettersStream}}, a.Streams...) {
		p.backup(i, s.Stream)
	}
	slices.Sort(p.Publish)
	p.Publish = slices.Compact(p.Publish)
	return p
}

// backup lets a stream be read whatever reads it otherwise, and be made from what was read.
func (p *Permissions) backup(i Installation, stream string) {
	p.stream(i, Usage{Stream: stream, Consumers: []string{"*"}, Reads: true})
	p.Publish = append(p.Publish, "$JS.API.CONSUMER.LIST."+i.Stream(stream), "$JS.API.STREAM.RESTORE."+i.Stream(stream))
}

func (p *Permissions) bucket(i Installation, bucket string) {
	p.stream(i, Usage{
		Stream: bucketStream + bucket, Publishes: []string{bucketSubject + bucket + ".>"}, Consumers: []string{"*"}, Reads: true,
	})
	p.Publish = append(p.Publish, "$JS.API.STREAM.MSG.DELETE."+i.Stream(bucketStream+bucket)) // what was replaced is overwritten
}

func (p *Permissions) stream(i Installation, s Usage) {
	name := i.Stream(s.Stream)
	may := func(format string, args ...any) { p.Publish = append(p.Publish, fmt.Sprintf(format, args...)) }
	for _, call := range []string{"INFO", "CREATE", "UPDATE"} {
		may("$JS.API.STREAM.%s.%s", call, name)
	}
	p.Publish = append(p.Publish, i.Subjects(s.Publishes)...)
	if s.Reads || len(s.Consumers) > 0 { // who consumes says how old the first message is that waits
		may("$JS.API.STREAM.MSG.GET.%s", name)
	}
	if s.Purges {
		may("$JS.API.STREAM.PURGE.%s", name)
	}
	for _, consumer := range s.Consumers {
		if consumer != "*" {
			consumer = i.Stream(consumer)
		}
		may("$JS.API.CONSUMER.CREATE.%s.%s", name, consumer)
		may("$JS.API.CONSUMER.CREATE.%s.%s.>", name, consumer) // with one filter, which stands behind the name
		may("$JS.API.CONSUMER.INFO.%s.%s", name, consumer)
		may("$JS.API.CONSUMER.DELETE.%s.%s", name, consumer)
		may("$JS.API.CONSUMER.MSG.NEXT.%s.%s", name, consumer)
		may("$JS.ACK.%s.%s.>", name, consumer)
	}
}

// Allows tells whether one of the patterns covers a subject, or every subject of a pattern.
func Allows(patterns []string, subject string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return covers(pattern, subject) })
}

// covers tells whether each subject that wanted stands for is one of pattern's.
func covers(pattern, wanted string) bool {
	have, want := strings.Split(pattern, "."), strings.Split(wanted, ".")
	for n, token := range have {
		switch {
		case token == ">":
			return n < len(want)
		case n >= len(want), token != want[n] && (token != "*" || want[n] == ">"):
			return false
		}
	}
	return len(have) == len(want)
}
