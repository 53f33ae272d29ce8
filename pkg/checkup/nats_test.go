package checkup_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// What can be known of whether NATS syncs is asked of its monitoring, and is no guess where it has none.
func TestSync_asFarAsItIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		always, monitored bool
		want              checkup.State
	}{"not always": {false, true, checkup.Failed}, "always": {true, true, checkup.OK}, "not told": {true, false, checkup.Skipped}} {
		port := testkit.FreePort(t)
		o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: testkit.FastDir(t), SyncAlways: c.always}
		if c.monitored {
			o.HTTPHost, o.HTTPPort = "127.0.0.1", port
		}
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("nats-server is not ready")
		}
		n := checkup.NewNATS(t.Context(), checkup.NATSConfig{Program: "auth", Client: checkup.NewClient(), MonitorPort: fmt.Sprint(port), Connect: func() (*nats.Conn, *kv.Session, error) {
			nc, js, err := stream.Connect(s.ClientURL(), "test")
			if err != nil {
				return nil, nil, err
			}
			return nc, kv.NewSession(js, stream.Settings{}), nil
		}})
		if got := n.Sync(t.Context()); got.State != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
