package redisx

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errNoRoute = errors.New("no route to host")

// asked makes one call that is answered with err, and tells whether Redis was asked.
func asked(ctx context.Context, c *circuit, err error) (asked bool, _ error) {
	err = c.do(ctx, func(context.Context) error {
		asked = true
		return err
	})
	return asked, err
}

func TestCircuit_oneCallAtATimeTriesWhetherRedisIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(CallTimeout)
		for range tripAfter {
			if ok, err := asked(t.Context(), c, errNoRoute); !ok || !errors.Is(err, ErrUnavailable) || !errors.Is(err, errNoRoute) {
				t.Fatalf("asked %v: %v", ok, err)
			}
		}
		if ok, err := asked(t.Context(), c, nil); ok || !errors.Is(err, ErrUnavailable) {
			t.Fatalf("open: asked %v: %v", ok, err)
		}
		for _, answer := range []error{errNoRoute, nil} {
			time.Sleep(openFor + time.Millisecond) //nolint:forbidigo // the clock is the test's own
			inside, answered := make(chan struct{}), make(chan error)
			go func() {
				answered <- c.do(t.Context(), func(context.Context) error {
					inside <- struct{}{}
					<-inside
					return answer
				})
			}()
			<-inside
			if ok, err := asked(t.Context(), c, nil); ok || !errors.Is(err, ErrUnavailable) {
				t.Fatalf("a second call while one tries: asked %v: %v", ok, err)
			}
			close(inside)
			if err := <-answered; !errors.Is(err, answer) {
				t.Fatalf("the call that tried: %v, want %v", err, answer)
			}
			if ok, _ := asked(t.Context(), c, nil); ok != (answer == nil) {
				t.Fatalf("asked %v after a try that was answered %v", ok, answer)
			}
		}
	})
}

// A caller who leaves before the answer has come is told so, and the next is asked all the same.
func TestCircuit_aCallerWhoGivesUpSaysNothingAboutRedis(t *testing.T) {
	c := newCircuit(CallTimeout)
	for range 2 * tripAfter {
		ctx, cancel := context.WithCancel(t.Context())
		err := c.do(ctx, func(ctx context.Context) error {
			cancel()
			return context.Cause(ctx)
		})
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
	}
	if ok, err := asked(t.Context(), c, nil); !ok || err != nil {
		t.Fatalf("asked %v: %v", ok, err)
	}
	// Nor does such a call break a row of failures.
	for range tripAfter - 1 {
		_, _ = asked(t.Context(), c, errNoRoute)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_ = c.do(ctx, func(context.Context) error { cancel(); return errNoRoute })
	_, _ = asked(t.Context(), c, errNoRoute)
	if ok, _ := asked(t.Context(), c, nil); ok {
		t.Fatalf("%d failures in a row and Redis is still asked", tripAfter)
	}
}
