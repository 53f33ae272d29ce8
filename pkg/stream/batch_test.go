package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// batches records what a batch handler got.
type batches struct {
	mu  sync.Mutex
	all [][]string
}

func (b *batches) add(ms []stream.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var one []string
	for _, m := range ms {
		one = append(one, string(m.Data))
	}
	b.all = append(b.all, one)
}

func (b *batches) flat() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Concat(b.all...)
}

func TestConsume_batchTakesWhatIsThereInOrder(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 250)
	var got batches
	consume(t, stream.ConsumeConfig{JS: js, Batch: 100, HandleBatch: func(_ context.Context, ms []stream.Msg) error {
		got.add(ms)
		return nil
	}})
	testkit.Eventually(t, wait, left(t, js))
	for i, d := range got.flat() {
		if d != strconv.Itoa(i+1) {
			t.Fatalf("message %d is %s", i+1, d)
		}
	}
	if n := len(got.all); n > 10 || len(got.flat()) != 250 {
		t.Fatalf("%d messages in %d batches", len(got.flat()), n)
	}
	// One that comes alone does not wait for company.
	publish(t, js, 251)
	testkit.Eventually(t, wait, left(t, js))
}

func TestConsume_oneBadMessageDoesNotHoldItsBatch(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 10)
	var good batches
	consume(t, stream.ConsumeConfig{JS: js, Batch: 10, MaxAttempts: 2, HandleBatch: func(_ context.Context, ms []stream.Msg) error {
		for _, m := range ms {
			if string(m.Data) == "5" {
				return errors.New("cannot read number 5")
			}
		}
		good.add(ms)
		return nil
	}})
	testkit.Eventually(t, wait, left(t, js))
	all := good.flat()
	slices.Sort(all)
	if len(slices.Compact(all)) != 9 {
		t.Fatalf("handled %v", all)
	}
	if dead := deadLetters(t, js); len(dead) != 1 || string(dead[0].Data) != "5" {
		t.Fatalf("%d dead letters", len(dead))
	}
}

func TestConsume_temporaryTroubleHoldsTheWholeBatch(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 5)
	var got batches
	calls := 0
	consume(t, stream.ConsumeConfig{JS: js, Batch: 10, MaxAttempts: 1, HandleBatch: func(_ context.Context, ms []stream.Msg) error {
		if calls++; calls < 3 {
			return fmt.Errorf("store: %w", stream.ErrTemporary)
		}
		got.add(ms)
		return nil
	}})
	testkit.Eventually(t, wait, left(t, js))
	if len(got.flat()) != 5 || len(deadLetters(t, js)) != 0 {
		t.Fatalf("%v, %d dead letters", got.all, len(deadLetters(t, js)))
	}
}

func TestHeaders_carryRequestAndTrace(t *testing.T) {
	traceID, err := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	if err != nil {
		t.Fatal(err)
	}
	spanID, err := trace.SpanIDFromHex("b7ad6b7169203331")
	if err != nil {
		t.Fatal(err)
	}
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled}))
	ctx = stream.WithRequestID(ctx, "request-1")

	js := testkit.JS(t)
	queue(t, js, 0)
	if _, err := (stream.Publisher{JS: js}).Publish(ctx, &nats.Msg{Subject: "q.x"}); err != nil {
		t.Fatal(err)
	}
	got := make(chan context.Context, 1)
	consume(t, stream.ConsumeConfig{JS: js, Handle: func(ctx context.Context, _ stream.Msg) error {
		got <- ctx
		return nil
	}})
	in := <-got
	if id := stream.RequestID(in); id != "request-1" {
		t.Errorf("request id %q", id)
	}
	if sc := trace.SpanContextFromContext(in); sc.TraceID() != traceID || !sc.IsSampled() || !sc.IsRemote() {
		t.Errorf("span context %+v", sc)
	}
}
