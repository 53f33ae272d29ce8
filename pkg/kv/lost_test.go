package kv_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// losing is a way to NATS on which some questions for messages are lost, as those to a consumer whose leader changes.
type losing struct {
	lose atomic.Int32
	url  string
}

// The question goes where nobody answers it; the names are of one length.
var (
	question  = []byte("PUB $JS.API.CONSUMER.MSG.NEXT")
	elsewhere = []byte("PUB XJS.API.CONSUMER.MSG.NEXT")
)

func losingWay(t *testing.T, s *testkit.NATSServer) *losing {
	t.Helper()
	sink, _ := s.Connect()
	if _, err := sink.SubscribeSync("XJS.>"); err != nil { // else NATS would say that nobody is there
		t.Fatal(err)
	}
	if err := sink.Flush(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	way := &losing{url: "nats://" + l.Addr().String()}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
			if err != nil {
				_ = near.Close()
				continue
			}
			go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
			go func() { way.carry(far, near); _ = far.Close() }()
		}
	}()
	return way
}

func (w *losing) carry(to io.Writer, from io.Reader) {
	for buffer := make([]byte, 64<<10); ; {
		n, err := from.Read(buffer)
		said := buffer[:n]
		if bytes.Contains(said, question) && w.lose.Add(-1) >= 0 {
			said = bytes.Replace(said, question, elsewhere, 1)
		}
		if _, werr := to.Write(said); err != nil || werr != nil {
			return
		}
	}
}

// A process that starts while leaders change must not wait for ever for records that nobody was asked for.
func TestWatch_asksAgainWhenTheQuestionIsLost(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	if _, err := openStrings(t, s, kv.Config{Name: "b"}).Create(t.Context(), "k", str("v")); err != nil {
		t.Fatal(err)
	}
	way := losingWay(t, s)
	nc, js, err := stream.Connect(way.url, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := kv.Open[wrapperspb.StringValue](t.Context(), js, kv.Config{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	way.lose.Store(1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := errors.New("seen")
	if err := b.Watch(ctx, ">", func(string, *wrapperspb.StringValue, uint64) error { return done }); !errors.Is(err, done) {
		t.Fatalf("the record was not seen: %v", err)
	}
	if way.lose.Load() >= 1 {
		t.Fatal("no question was lost")
	}
}
