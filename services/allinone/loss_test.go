package allinone

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"devpilot.io/bitbucket/pkg/seal"
)

// Whoever lets the services in by an nkey lets the one in who mends their stores.
func TestAcceptLoss_atANATSThatKnowsItsClients(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "nkey")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), Nkeys: []*server.NkeyUser{{Nkey: public}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("NATS does not start")
	}
	for says, change := range map[string]func(*LossSettings){
		`there is no bucket "lost"`:           func(*LossSettings) {},
		"NATS does not let this process in":   func(l *LossSettings) { l.NATSNkeyFile = "" },
		"DEVPILOT_NATS_URL is not set":        func(l *LossSettings) { l.NATSURL = seal.Secret{} },
		"beyond this machine":                 func(l *LossSettings) { l.NATSURL = seal.NewSecret("nats://nats.example.com:4222") },
		"--installation (DEVPILOT_INSTALLATI": func(l *LossSettings) { l.Installation = "Not a name" },
	} {
		settings := LossSettings{Bucket: "lost"}
		settings.NATSURL, settings.NATSNkeyFile, settings.DataDir = seal.NewSecret(s.ClientURL()), file, t.TempDir()
		change(&settings)
		if err := AcceptLoss(t.Context(), io.Discard, settings); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
