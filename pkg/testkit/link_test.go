package testkit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/testkit"
)

// within bounds what takes a moment on a quiet machine.
const within = 15 * time.Second

// mirrored answers each line with itself.
func mirrored(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					if _, err := fmt.Fprintln(c, lines.Text()); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestLink_carriesNothingWhileItIsCut(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]testkit.Direction{"there": testkit.There, "back": testkit.Back, "both": testkit.BothWays} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testkit.NewLink(t, mirrored(t))
			c, err := net.Dial("tcp", l.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			answers := bufio.NewReader(c)
			say := func(word string) {
				t.Helper()
				if _, err := fmt.Fprintln(c, word); err != nil {
					t.Fatal(err)
				}
			}
			hear := func(want string) {
				t.Helper()
				if got, err := answers.ReadString('\n'); err != nil || got != want+"\n" {
					t.Fatalf("heard %q, %v, want %q", got, err, want)
				}
			}
			say("one")
			hear("one")
			l.Cut(way)
			say("two")
			if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if got, err := answers.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("heard %q, %v on a way that is cut", got, err)
			}
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			l.Heal()
			hear("two")
		})
	}
}

// The two nodes that see each other go on, and the third one hears what it missed.
func TestNATSNodes_goOnWithoutOneThatIsCutOff(t *testing.T) {
	t.Parallel()
	c := testkit.RealNATSCluster(t, 3, t.TempDir())
	_, js := c.Connect()
	testkit.Eventually(t, within, func() error {
		_, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "things", Replicas: 3})
		return err
	})
	for node := range c.Nodes {
		c.Isolate(node, testkit.BothWays)
		_, others := c.Nodes[(node+1)%len(c.Nodes)].Connect()
		testkit.Eventually(t, within, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			bucket, err := others.KeyValue(ctx, "things")
			if err == nil {
				_, err = bucket.Put(ctx, fmt.Sprint("without-", node), []byte("x"))
			}
			return err
		})
		c.Heal()
		testkit.Eventually(t, within, func() error { return whole(t, others) })
	}
}

// whole says which node is behind.
func whole(t *testing.T, js jetstream.JetStream) error {
	t.Helper()
	s, err := js.Stream(t.Context(), "KV_things")
	if err != nil {
		return err
	}
	replicas := s.CachedInfo().Cluster.Replicas
	for _, replica := range replicas {
		if !replica.Current || replica.Offline {
			return fmt.Errorf("%s is behind", replica.Name)
		}
	}
	if len(replicas) != 2 {
		return fmt.Errorf("the leader knows %d others", len(replicas))
	}
	return nil
}
