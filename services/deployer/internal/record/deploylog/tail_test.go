package deploylog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// counting is a stream that counts the messages which its readers ask for.
type counting struct {
	jetstream.Stream
	gets  int
	start []uint64 // where consumers began
}

func (c *counting) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	c.gets++
	return c.Stream.GetMsg(ctx, seq, opts...)
}

func (c *counting) GetLastMsgForSubject(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	c.gets++
	return c.Stream.GetLastMsgForSubject(ctx, subject)
}

func (c *counting) OrderedConsumer(ctx context.Context, cfg jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	c.start = append(c.start, max(cfg.OptStartSeq, 1))
	return c.Stream.OrderedConsumer(ctx, cfg)
}

// longLog is a stored log of the given number of messages with lines each, as a worker writes it, among
// others' messages. damaged messages cannot be read.
func longLog(t testing.TB, s *deploylog.Sink, messages, lines int, damaged func(i int) bool) *counting {
	t.Helper()
	subject, err := streams.LogSubject("acme-inc", "web", 7)
	if err != nil {
		t.Fatal(err)
	}
	other, err := streams.LogSubject("acme-inc", "other", 1)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(subject string, data []byte) {
		if _, err := s.JS.PublishAsync(subject, data); err != nil {
			t.Fatal(err)
		}
	}
	line := int32(0)
	for i := range messages {
		b := &storev1.LogBatch{Generation: 1, Epoch: 1}
		for range lines {
			line++
			b.Records = append(b.Records, &deployerv1.LogRecord{Line: line, Text: fmt.Sprint("line ", line)})
		}
		b.LastLine = line
		data, err := proto.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if damaged != nil && damaged(i) {
			data = []byte{0xff}
		}
		publish(subject, data)
		if i%3 == 0 {
			publish(other, []byte("another's"))
		}
		if i%500 == 499 {
			<-s.JS.PublishAsyncComplete()
		}
	}
	<-s.JS.PublishAsyncComplete()
	c := &counting{Stream: s.Logs}
	s.Logs = c
	return c
}

func TestRead_theEndOfALongLogCostsTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		messages, lines int
		req             deploylog.Request
		first           int32
		want            int
		most            int // messages asked for, one by one and by a consumer
	}{
		"in the last message":        {40, 500, deploylog.Request{Tail: 10}, 19_991, 10, 1},
		"lines that came one by one": {20_000, 1, deploylog.Request{Tail: 10}, 19_991, 10, 40},
		"after a line":               {20_000, 1, deploylog.Request{After: 19_700}, 19_701, 300, 450},
		"after a line, of a tail":    {20_000, 1, deploylog.Request{After: 19_700, Tail: 10}, 19_991, 10, 40},
		"the middle":                 {20_000, 1, deploylog.Request{After: 10_000}, 10_001, 10_000, 13_400},
		"after the last":             {40, 500, deploylog.Request{After: 20_000}, 0, 0, 1},
		"beyond the last":            {40, 500, deploylog.Request{After: 30_000}, 0, 0, 1},
		"a tail of all":              {40, 500, deploylog.Request{Tail: 30_000}, 1, 20_000, 56},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newSink(t, deploylog.Limits{})
			counted := longLog(t, s, c.messages, c.lines, nil)
			got, first := 0, int32(0)
			req := c.req
			req.Workspace, req.App, req.Number, req.Generation = "acme-inc", "web", 7, 1
			if err := s.Read(t.Context(), req, func(records []*deployerv1.LogRecord) error {
				for _, r := range records {
					if got++; got == 1 {
						first = r.GetLine()
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if got != c.want || first != c.first {
				t.Errorf("%d lines from %d on", got, first)
			}
			asked := counted.gets
			for _, from := range counted.start {
				asked += messagesFrom(t, counted, from)
			}
			if asked > c.most {
				t.Errorf("%d messages asked for, consumers from %d", asked, counted.start)
			}
		})
	}
}

// messagesFrom counts the messages of the log from a sequence on.
func messagesFrom(t *testing.T, c *counting, from uint64) int {
	t.Helper()
	info, err := c.Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	return int(info.State.LastSeq-from) + 1 // few; at most, since others' are among them
}

func TestRead_findsItsLinesWhateverIsDamagedOrGone(t *testing.T) {
	s, _ := newSink(t, deploylog.Limits{})
	counted := longLog(t, s, 2000, 1, func(i int) bool { return i > 1900 && i < 1990 && i%2 == 0 || i > 500 && i < 700 })
	if err := counted.Purge(t.Context(), jetstream.WithPurgeSequence(400)); err != nil { // as retention does
		t.Fatal(err)
	}
	for after := int32(1); after < 2000; after += 37 {
		var lines []int32
		req := deploylog.Request{Workspace: "acme-inc", App: "web", Number: 7, Generation: 1, After: after}
		if err := s.Read(t.Context(), req, func(records []*deployerv1.LogRecord) error {
			for _, r := range records {
				lines = append(lines, r.GetLine())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want := 0
		for i := int32(max(after, 299)); i < 2000; i++ { //nolint:unconvert // of the same width as the message's
			if !(i > 1900 && i < 1990 && i%2 == 0 || i > 500 && i < 700) { //nolint:staticcheck // reads as the rule is said
				want++
			}
		}
		if d := len(lines) - want; d < -2 || d > 2 || len(lines) == 0 || lines[0] <= after { // where retention cuts is the stream's
			t.Fatalf("after %d: %d lines from %d, want %d", after, len(lines), lines[0], want)
		}
	}
}

// BenchmarkTail reads the last ten of 20,000 lines that came a few at a time.
func BenchmarkTail(b *testing.B) {
	nats := testkit.NATS(b)
	logs, err := stream.Ensure(b.Context(), nats.JS(), streams.Logs, stream.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s := &deploylog.Sink{JS: nats.JS(), Logs: logs}
	longLog(b, s, 2000, 10, nil)
	for b.Loop() {
		n := 0
		err := s.Read(b.Context(), deploylog.Request{Workspace: "acme-inc", App: "web", Number: 7, Generation: 1, Tail: 10}, func(r []*deployerv1.LogRecord) error {
			n += len(r)
			return nil
		})
		if err != nil || n != 10 {
			b.Fatal(n, err)
		}
	}
}
