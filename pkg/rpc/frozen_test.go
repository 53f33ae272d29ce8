package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
)

// freezer stands before a replica. Frozen, it is what a stopped process is to its clients: connections stay open and
// new ones are taken, and nothing comes back.
type freezer struct {
	address string

	mu     sync.Mutex
	thawed chan struct{} // closed while nothing is frozen
}

func newFreezer(t *testing.T, target string) *freezer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{address: l.Addr().String(), thawed: make(chan struct{})}
	close(f.thawed)
	var all sync.WaitGroup
	var conns sync.Map
	pass := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			f.mu.Lock()
			thawed := f.thawed
			f.mu.Unlock()
			<-thawed
			if n > 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			conns.Store(in, nil)
			conns.Store(out, nil)
			all.Go(func() { pass(out, in) })
			all.Go(func() { pass(in, out) })
		}
	})
	t.Cleanup(func() {
		f.thaw()
		_ = l.Close()
		conns.Range(func(c, _ any) bool { _ = c.(io.Closer).Close(); return true })
		all.Wait()
	})
	return f
}

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.thawed = make(chan struct{})
}

func (f *freezer) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.thawed:
	default:
		close(f.thawed)
	}
}

// A frozen replica costs an idempotent call a moment, which is then made elsewhere, and later calls of any kind
// nothing: they keep away from it until it answers again.
func TestClient_keepsAwayFromAFrozenReplica(t *testing.T) {
	t.Parallel()
	keys := testkit.Keys(t)
	var a, b atomic.Int32
	frozen := newFreezer(t, full(t, keys, counting(&a)))
	conn, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "auth", Keys: keys, Target: frozen.address + "," + full(t, keys, counting(&b))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	both := func() error {
		if err := connectOnce(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		if a.Load() == 0 || b.Load() == 0 {
			return errors.New("one replica was never asked")
		}
		return nil
	}
	testkit.Eventually(t, 20*time.Second, both)
	a.Store(0)
	b.Store(0)
	frozen.freeze()
	// Many at once: half of them begin at the frozen one.
	within, cancel := context.WithTimeout(t.Context(), rpc.DefaultTimeout)
	defer cancel()
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if err := issue(within, conn, "acme-inc"); err != nil {
				t.Errorf("an idempotent call beside a frozen replica: %v", err)
			}
		})
	}
	calls.Wait()
	for range 40 {
		if err := connectOnce(within, conn); err != nil {
			t.Fatalf("a call after that: %v", err)
		}
	}
	if a.Load() != 0 || b.Load() != 60 {
		t.Errorf("%d calls came to the replica that works and %d to the frozen one", b.Load(), a.Load())
	}
	frozen.thaw()
	a.Store(0)
	testkit.Eventually(t, time.Minute, both)
}

// Where all replicas are frozen a call still goes to one, and ends with its deadline.
func TestClient_allReplicasFrozen(t *testing.T) {
	t.Parallel()
	keys := testkit.Keys(t)
	var a atomic.Int32
	frozen := newFreezer(t, full(t, keys, counting(&a)))
	conn, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "auth", Keys: keys, Target: frozen.address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := issue(t.Context(), conn, "acme-inc"); err != nil {
		t.Fatal(err)
	}
	frozen.freeze()
	for name, call := range map[string]func(context.Context) error{
		"idempotent": func(ctx context.Context) error { return issue(ctx, conn, "acme-inc") },
		"not":        func(ctx context.Context) error { return connectOnce(ctx, conn) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := call(ctx); err == nil {
			t.Errorf("%s: answered by nobody", name)
		}
		cancel()
	}
	frozen.thaw()
	testkit.Eventually(t, time.Minute, func() error { return connectOnce(t.Context(), conn) })
}
