package kv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

type (
	stringCopy   = kv.Copy[wrapperspb.StringValue, *wrapperspb.StringValue]
	stringView   = kv.View[wrapperspb.StringValue, *wrapperspb.StringValue]
	stringConfig = kv.CopyConfig[*wrapperspb.StringValue]
)

// running is a copy that has made its first pass.
func running(t *testing.T, b *stringBucket, cfg stringConfig) *stringCopy {
	t.Helper()
	c := kv.NewCopy(b, cfg)
	background(t, c.Run)
	testkit.Eventually(t, wait, func() error { return c.Ready(t.Context()) })
	return c
}

func fresh(t *testing.T, c *stringCopy) *stringView {
	t.Helper()
	v, err := c.Fresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func reads(t *testing.T, v *stringView, key, want string) {
	t.Helper()
	got, _, err := v.Get(t.Context(), key)
	if err != nil || got.GetValue() != want {
		t.Fatalf("%s is %q, %v; want %q", key, got.GetValue(), err, want)
	}
}

func readsNone(t *testing.T, v *stringView, key string) {
	t.Helper()
	if got, _, err := v.Get(t.Context(), key); !errors.Is(err, kv.ErrNotFound) {
		t.Fatalf("%s is %q, %v", key, got.GetValue(), err)
	}
}

// gate holds a copy's watch back once it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{}
}

func (g *gate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut = shut
	return sync.OnceFunc(func() { close(shut) })
}

func (g *gate) pass(string, *wrapperspb.StringValue) any {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
	return nil
}

// other is the bucket as another process has it.
func other(t *testing.T, s *testkit.NATSServer, cfg kv.Config) *stringBucket {
	t.Helper()
	_, js := s.Connect()
	b, err := kv.Open[wrapperspb.StringValue](t.Context(), js, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCopy_readsWhatAnotherProcessJustWrote(t *testing.T) {
	s := testkit.NATS(t)
	c := running(t, openStrings(t, s, kv.Config{Name: "b"}), stringConfig{})
	writer := other(t, s, kv.Config{Name: "b"})
	for i := range 300 {
		put(t, writer, "a", fmt.Sprint(i))
		put(t, writer, fmt.Sprint("k", i), "1")
		v := fresh(t, c)
		reads(t, v, "a", fmt.Sprint(i))
		reads(t, v, fmt.Sprint("k", i), "1")
		if err := writer.Delete(t.Context(), fmt.Sprint("k", i), 0); err != nil {
			t.Fatal(err)
		}
		readsNone(t, fresh(t, c), fmt.Sprint("k", i))
	}
}

func TestCopy_thatLagsReadsFromTheLeader(t *testing.T) {
	s := testkit.NATS(t)
	var g gate
	reg := prometheus.NewRegistry()
	metrics, err := kv.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "ws.a", "1")
	c := running(t, b, stringConfig{Summarize: g.pass, Metrics: metrics})
	writer := other(t, s, kv.Config{Name: "b"})
	open := g.close()
	defer open()
	put(t, writer, "ws.a", "2")
	put(t, writer, "ws.b", "1")
	put(t, b, "ws.own", "1")

	for range 3 {
		v := fresh(t, c)
		if v.FromCopy() {
			t.Fatal("a copy that lacks what was written is taken for fresh")
		}
		reads(t, v, "ws.a", "2")
		reads(t, v, "ws.b", "1")
		keys, err := v.Keys(t.Context(), "ws.", "ws.a", 0)
		if err != nil || !slices.Equal(keys, []string{"ws.b", "ws.own"}) {
			t.Fatalf("keys %v, %v", keys, err)
		}
	}
	own, err := c.AtLeast(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	reads(t, own, "ws.own", "1")
	if n := fallbacks(t, reg, "behind"); n < 6 {
		t.Errorf("%v fallbacks counted", n)
	}

	open()
	testkit.Eventually(t, wait, func() error {
		if v := fresh(t, c); !v.FromCopy() {
			return errors.New("still behind")
		}
		return nil
	})
	reads(t, fresh(t, c), "ws.own", "1")
}

// fallbacks is the counter of a reason, as it is collected.
func fallbacks(t *testing.T, reg *prometheus.Registry, reason string) (total float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "devpilot_kv_copy_fallbacks_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" && l.GetValue() == reason {
					total += m.GetCounter().GetValue()
				}
			}
		}
	}
	return total
}

func TestCopy_oneQuestionServesAllReadsOfARequest(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	for i := range 50 {
		put(t, b, fmt.Sprint("k", i), "1")
	}
	c := running(t, b, stringConfig{})
	fresh(t, c) // after the first pass
	asked := questions(t, s)
	v := fresh(t, c)
	for i := range 50 {
		reads(t, v, fmt.Sprint("k", i), "1")
	}
	readsNone(t, v, "none")
	if n := asked(); n != 1 {
		t.Fatalf("%d questions to the leader, want 1", n)
	}
}

func TestCopy_overASoleSessionReadsWhatAnyHandleWroteAndAsksNobody(t *testing.T) {
	s := testkit.NATS(t)
	_, js := s.Connect()
	session := kv.NewSoleSession(js, stream.Settings{})
	handle := func() *stringBucket {
		t.Helper()
		b, err := kv.Open[wrapperspb.StringValue](t.Context(), session, kv.Config{Name: "b"})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	c, writer := running(t, handle(), stringConfig{}), handle()
	fresh(t, c) // after the first pass
	asked := questions(t, s)
	for i := range 300 {
		key := fmt.Sprint("k", i)
		if _, err := writer.Create(t.Context(), key, str(key)); err != nil {
			t.Fatal(err)
		}
		v := fresh(t, c)
		if !v.FromCopy() {
			t.Fatalf("%s is not read from the copy", key)
		}
		reads(t, v, key, key)
	}
	if n := asked(); n != 0 {
		t.Fatalf("%d questions to the leader, want none", n)
	}
}

func TestCopy_overASoleSessionSaysThatItsStoreIsAway(t *testing.T) {
	s := testkit.NATS(t)
	nc, js := s.Connect()
	b, err := kv.Open[wrapperspb.StringValue](t.Context(), kv.NewSoleSession(js, stream.Settings{}), kv.Config{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	c := running(t, b, stringConfig{})
	fresh(t, c)
	s.Stop()
	testkit.Eventually(t, wait, func() error {
		if nc.IsConnected() {
			return errors.New("still connected")
		}
		return nil
	})
	if _, err := c.Fresh(t.Context()); !errors.Is(err, kv.ErrUnavailable) {
		t.Fatalf("a store that is away is answered for: %v", err)
	}
}

// questions counts what is asked of JetStream's leaders from here on.
func questions(t *testing.T, s *testkit.NATSServer) (count func() int) {
	t.Helper()
	nc, _ := s.Connect()
	sub, err := nc.SubscribeSync("$JS.API.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return func() int {
		t.Helper()
		if err := nc.Flush(); err != nil { // what was asked before is here now
			t.Fatal(err)
		}
		n := 0
		for {
			m, err := sub.NextMsg(wait / 100)
			if err != nil {
				return n
			}
			if strings.HasPrefix(m.Subject, "$JS.API.STREAM.") {
				n++
			}
		}
	}
}

func TestCopy_noticesAPurgeAndAStreamThatWasMadeAgain(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "a", "1")
	put(t, b, "b", "1")
	c := running(t, b, stringConfig{})
	reads(t, fresh(t, c), "a", "1")
	_, js := s.Connect()
	st, err := js.Stream(t.Context(), "KV_b")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	readsNone(t, fresh(t, c), "a")
	testkit.Eventually(t, wait, func() error {
		if v := fresh(t, c); !v.FromCopy() || c.Len() != 0 {
			return fmt.Errorf("from copy: %v, %d keys", v.FromCopy(), c.Len())
		}
		return nil
	})

	put(t, b, "a", "2")
	reads(t, fresh(t, c), "a", "2")
	if err := js.DeleteStream(t.Context(), "KV_b"); err != nil {
		t.Fatal(err)
	}
	again := other(t, s, kv.Config{Name: "b"})
	for i := range 10 {
		put(t, again, "c", fmt.Sprint(i))
	}
	v := fresh(t, c)
	readsNone(t, v, "a")
	reads(t, v, "c", "9")
	testkit.Eventually(t, wait, func() error {
		if v := fresh(t, c); !v.FromCopy() {
			return errors.New("not watched again")
		}
		return nil
	})
	v = fresh(t, c)
	readsNone(t, v, "a")
	reads(t, v, "c", "9")
}

func TestCopy_survivesARestartOfTheStore(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "a", "1")
	c := running(t, b, stringConfig{})
	s.Restart()
	put(t, b, "a", "2")
	testkit.Eventually(t, wait, func() error {
		v, err := c.Fresh(t.Context())
		if err != nil {
			return err
		}
		got, _, err := v.Get(t.Context(), "a")
		if err != nil || got.GetValue() != "2" || !v.FromCopy() {
			return fmt.Errorf("%q, %v, from the copy: %v", got.GetValue(), err, v.FromCopy()) //nolint:errorlint // only its words are wanted
		}
		return nil
	})
}

func TestCopy_withoutAStoreIsNoAnswer(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "a", "1")
	c := running(t, b, stringConfig{})
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), wait/50)
	defer cancel()
	v, err := c.Fresh(ctx)
	if err == nil {
		_, _, err = v.Get(ctx, "a") // the watch has noticed first
	}
	if !errors.Is(err, kv.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("answered without knowing: %v", err)
	}
}

func TestCopy_beforeItsFirstPassReadsFromTheLeader(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	put(t, b, "a", "1")
	v := fresh(t, kv.NewCopy(b, stringConfig{}))
	if v.FromCopy() {
		t.Fatal("a cold copy is read")
	}
	reads(t, v, "a", "1")
}

// Latest asks nobody: it answers while the store is away, and says when it does not know.
func TestCopy_latestAsksNobody(t *testing.T) {
	nats := testkit.NATS(t)
	b := openStrings(t, nats, kv.Config{Name: "b"})
	put(t, b, "a", "1")
	cfg := stringConfig{MaxBytes: 2_000, Summarize: func(_ string, v *wrapperspb.StringValue) any { return v.GetValue() }}
	c := kv.NewCopy(b, cfg)
	wants := func(key string, want any, wantOK bool) {
		t.Helper()
		if got, ok := c.Latest(key); got != want || ok != wantOK {
			t.Errorf("%s: %v, %v; want %v, %v", key, got, ok, want, wantOK)
		}
	}
	wants("a", nil, false) // nothing was read yet
	c = running(t, b, cfg)
	wants("a", "1", true)
	wants("b", nil, true)
	nats.Stop()
	wants("a", "1", true)
	wants("b", nil, true)
	nats.Start()
	for i := range 20 {
		put(t, b, fmt.Sprintf("k%02d", i), "1")
	}
	testkit.Eventually(t, wait, func() error {
		if _, ok := c.Latest("a"); ok {
			return errors.New("a copy without room answers still")
		}
		return nil
	})
}

func TestCopy_leavesOutOldValuesAndThenEverything(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	long := strings.Repeat("x", 1000)
	c := running(t, b, stringConfig{MaxBytes: 10_000, Summarize: func(key string, _ *wrapperspb.StringValue) any { return key }})
	for i := range 20 {
		put(t, b, fmt.Sprintf("k%02d", i), long)
	}
	v := fresh(t, c)
	if !v.FromCopy() || c.Len() != 20 || c.Bytes() > 10_000 {
		t.Fatalf("from copy: %v, %d keys, %d bytes", v.FromCopy(), c.Len(), c.Bytes())
	}
	for i := range 20 {
		key := fmt.Sprintf("k%02d", i)
		reads(t, v, key, long)
		if got, ok := v.Summary(key); !ok || got != key {
			t.Fatalf("summary of %s: %v, %v", key, got, ok)
		}
	}
	for i := range 40 {
		put(t, b, fmt.Sprintf("more%02d", i), "1")
	}
	v = fresh(t, c)
	if v.FromCopy() || c.Len() != 0 {
		t.Fatalf("from copy: %v, %d keys", v.FromCopy(), c.Len())
	}
	reads(t, v, "k00", long)
	keys, err := v.Keys(t.Context(), "", "", 2)
	if err != nil || !slices.Equal(keys, []string{"k00", "k01"}) {
		t.Fatalf("%v, %v", keys, err)
	}
}

func TestCopy_listsKeysInPages(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	for _, key := range []string{"ws.b", "ws.a", "ws2.a", "ws.c", "v.z", "ws.gone"} {
		put(t, b, key, "1")
	}
	c := running(t, b, stringConfig{})
	if err := b.Delete(t.Context(), "ws.gone", 0); err != nil {
		t.Fatal(err)
	}
	v := fresh(t, c)
	count := func(prefix string, want int) {
		t.Helper()
		for what, v := range map[string]*stringView{"copy": v, "leader": fresh(t, kv.NewCopy(b, stringConfig{}))} {
			if n, err := v.Count(t.Context(), prefix); err != nil || n != want {
				t.Errorf("%s: %d keys begin with %q, %v; want %d", what, n, prefix, err, want)
			}
		}
	}
	count("ws.", 3)
	count("none.", 0)
	list := func(prefix, after string, limit int, want ...string) {
		t.Helper()
		if got, err := v.Keys(t.Context(), prefix, after, limit); err != nil || !slices.Equal(got, want) {
			t.Errorf("keys of %q after %q: %v, %v; want %v", prefix, after, got, err, want)
		}
	}
	list("ws.", "", 0, "ws.a", "ws.b", "ws.c")
	list("ws.", "", 2, "ws.a", "ws.b")
	list("ws.", "ws.b", 2, "ws.c")
	list("ws.", "ws.aa", 2, "ws.b", "ws.c")
	list("ws.", "ws.z", 2)
	list("none.", "", 0)
	list("", "", 0, "v.z", "ws.a", "ws.b", "ws.c", "ws2.a")
	put(t, b, "ws.aa", "1")
	v = fresh(t, c)
	list("ws.", "ws.a", 0, "ws.aa", "ws.b", "ws.c")
}

func TestCopy_aLossIsNoAbsence(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, counted)
	c := running(t, b, stringConfig{})
	writer := other(t, s, counted)
	put(t, writer, "acme.web", "1") // b's process knows of it from the copy alone
	listed(t, s, 1)
	reads(t, fresh(t, c), "acme.web", "1")
	st, err := s.JS().Stream(t.Context(), b.StreamName())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := fresh(t, c)
	if keys, err := v.Keys(t.Context(), "acme.", "", 0); !errors.Is(err, kv.ErrLost) {
		t.Errorf("a list without what was lost: %v, %v", keys, err)
	}
	if got, _, err := v.Get(t.Context(), "acme.web"); !errors.Is(err, kv.ErrLost) {
		t.Errorf("what was lost: %q, %v", got.GetValue(), err)
	}
	testkit.Eventually(t, wait, func() error {
		if v := fresh(t, c); !v.FromCopy() {
			return errors.New("not watched again")
		}
		return nil
	})
	if keys, err := fresh(t, c).Keys(t.Context(), "acme.", "", 0); !errors.Is(err, kv.ErrLost) {
		t.Errorf("a list of the new pass: %v, %v", keys, err)
	}
	if _, _, err := fresh(t, c).Get(t.Context(), "acme.web"); !errors.Is(err, kv.ErrLost) {
		t.Errorf("what was lost, in the new pass: %v", err)
	}
	if _, _, err := fresh(t, c).Get(t.Context(), "acme.other"); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("what never was: %v", err)
	}
}
