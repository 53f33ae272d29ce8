package testkit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/testkit"
)

func TestRealNATS_keepsAcknowledgedMessagesOverKill(t *testing.T) {
	s := testkit.RealNATS(t)
	_, js := s.Connect()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := js.Publish(t.Context(), "s.x", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	s.Restart()
	testkit.Eventually(t, 10*time.Second, func() error {
		st, err := js.Stream(t.Context(), "S")
		if err != nil {
			return err
		}
		if n := st.CachedInfo().State.Msgs; n != 50 {
			t.Fatalf("%d messages left of 50", n)
		}
		return nil
	})
}

func TestRealNATS_stopFreezesAndContinueThaws(t *testing.T) {
	s := testkit.RealNATS(t)
	nc, _ := s.Connect()
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := nc.FlushWithContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a stopped server answered: %v", err)
	}
	s.Continue()
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestRealRedis_forgetsOverKill(t *testing.T) {
	r := testkit.RealRedis(t)
	c := r.Client()
	if err := c.Set(t.Context(), "k", "v", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	r.Restart()
	testkit.Eventually(t, 10*time.Second, func() error {
		n, err := c.Exists(t.Context(), "k").Result()
		if err == nil && n != 0 {
			t.Fatal("a Redis without persistence remembered")
		}
		return err
	})
}

func TestRedis_clockTicks(t *testing.T) {
	r := testkit.Redis(t)
	c := r.Client()
	if err := c.Set(t.Context(), "k", "v", 300*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 5*time.Second, func() error {
		if n := c.Exists(t.Context(), "k").Val(); n != 0 {
			return errors.New("the key has not expired")
		}
		return nil
	})
}

func TestLogger_findsSecrets(t *testing.T) {
	l := testkit.Logger(t)
	l.Info("hello", "word", "planted")
	if !l.Contains("planted") {
		t.Fatal("a logged word was not found")
	}
	probe := &recorder{TB: t}
	l.MustNotContain(probe, "absent", "planted")
	if probe.errors != 1 {
		t.Fatalf("%d errors for one planted secret", probe.errors)
	}
}

// recorder counts errors instead of failing.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Errorf(string, ...any) { r.errors++ }
