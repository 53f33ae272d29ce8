package doctor

import (
	"bytes"
	"fmt"
	"net"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

func TestRun_natsThatIsNotWell(t *testing.T) {
	w := newWorld(t)
	w.fails([]failing{
		{"NATS gone", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": "nats://127.0.0.1:1"}, checkup.Failed, "does not answer", "Start NATS"},
		{"NATS too old", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": oldNATS(t)}, checkup.Failed, "nats-server 2.9.25", "needs 2.15 or newer"},
		{"no JetStream", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, func(o *server.Options) { o.JetStream = false })}, checkup.Failed, "but not its JetStream", "Switch JetStream on"},
		{"replicas on one server", "auth", "nats-replicas", map[string]string{"DEVPILOT_NATS_REPLICAS": "3"}, checkup.Failed, "single server", "leave DEVPILOT_NATS_REPLICAS out"},
		{"store too small", "auth", "nats-storage", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, func(o *server.Options) { o.JetStreamMaxStore = 2 << 30 })}, checkup.Failed, "4352 MiB are needed", "to 1792 or less"},
		{"may not make streams", "auth", "nats-permissions", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, deny("$JS.API.STREAM.CREATE.>"))}, checkup.Failed, "may not publish to $JS.API.STREAM.CREATE.DEVPILOT_", "devpilot nats-permissions"},
		{"may not publish", "auth", "nats-permissions", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, deny("devpilot.>"))}, checkup.Failed, "may not publish to devpilot.dead.v1.>, publish to devpilot.event.v1.auth.>", "devpilot nats-permissions"},
		{"another service's user", "auth", "nats-permissions", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, allow("webhook"))}, checkup.Failed, "may not publish to $JS.ACK.KV_DEVPILOT_AUTH_INTEGRATIONS", "devpilot nats-permissions"},
	})
}

// oldNATS says what a server of long ago says, and answers pings.
func oldNATS(t *testing.T) string {
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
				fmt.Fprintf(c, "INFO {\"server_id\":\"X\",\"version\":\"2.9.25\",\"proto\":1,\"max_payload\":1048576,\"headers\":true,\"jetstream\":true}\r\n")
				buffer := make([]byte, 4096)
				for {
					n, err := c.Read(buffer)
					if err != nil {
						return
					}
					if bytes.Contains(buffer[:n], []byte("PING")) {
						fmt.Fprint(c, "PONG\r\n")
					}
				}
			}()
		}
	}()
	return "nats://" + l.Addr().String()
}

// realNATS is a server with options of the test's own.
func realNATS(t *testing.T, change func(o *server.Options)) string {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: testkit.FastDir(t), JetStreamMaxStore: 8 << 30, SyncAlways: true}
	change(o)
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(timeout) {
		t.Fatal("nats-server is not ready")
	}
	return s.ClientURL()
}

// deny lets everybody publish to all but a subject.
func deny(subject string) func(o *server.Options) {
	return func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{subject}}}}}
		o.NoAuthUser = "u"
	}
}

// allow gives everybody the permissions of one service.
func allow(service string) func(*server.Options) {
	return func(o *server.Options) {
		for _, user := range allinone.NATSUsers("") {
			if user.Name == service {
				o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
					Publish: &server.SubjectPermission{Allow: user.Publish}, Subscribe: &server.SubjectPermission{Allow: append(user.Subscribe, "_INBOX.>")},
				}}}
			}
		}
		o.NoAuthUser = "u"
	}
}
