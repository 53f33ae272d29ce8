package doctor

import (
	"testing"

	"devpilot.io/bitbucket/pkg/checkup"
)

func TestRun_settingsThatAreWrong(t *testing.T) {
	w := newWorld(t)
	w.fails([]failing{
		{"unknown name", "auth", "settings", map[string]string{"DEVPILOT_PUBLC_URL": "x"}, checkup.Failed, "did you mean DEVPILOT_PUBLIC_URL?", "does not start"},
		{"required name", "webhook", "settings", map[string]string{"DEVPILOT_AUTH_ADDR": "-"}, checkup.Failed, "DEVPILOT_AUTH_ADDR is not set", "does not start"},
		{"out of bounds", "auth", "settings", map[string]string{"DEVPILOT_STREAMS_MIB": "1"}, checkup.Failed, "give from 256", "does not start"},
		{"public URL with a path", "gateway", "settings", map[string]string{"DEVPILOT_PUBLIC_URL": "https://a.example/x"}, checkup.Failed, "DEVPILOT_PUBLIC_URL", "does not start"},
		{"name of the installation", "auth", "settings", map[string]string{"DEVPILOT_INSTALLATION": "Upper"}, checkup.Failed, "DEVPILOT_INSTALLATION", "does not start"},
	})
}
