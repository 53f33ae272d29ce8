package inbox_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

func TestDefinition_isWhatTheDesignSays(t *testing.T) {
	testkit.StreamIs(t, inbox.Definition, "DEVPILOT_INBOX", jetstream.LimitsPolicy, 7*24*time.Hour)
	if inbox.Definition.Config.Discard != jetstream.DiscardNew {
		t.Error("a full inbox must refuse, not forget")
	}
}
