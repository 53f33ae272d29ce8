package rest

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/gateway/internal/activity"
)

func TestSentence(t *testing.T) {
	for _, c := range []struct {
		change activity.Change
		want   string
	}{
		{activity.Change{Field: "autoDeploy", Before: "true", After: "false"}, `Switched auto-deploy of app "web" off.`},
		{activity.Change{Field: "branch", Before: `"main"`, After: `"next"`}, `Changed the branch of app "web".`},
		{
			activity.Change{Field: "hooks", Before: `[{"name":"build","command":"a"},{"name":"old"}]`, After: `[{"name":"build","command":"b"}]`},
			`Changed the build hook's command of app "web". Removed the hook old from app "web".`,
		},
		{
			activity.Change{Field: "variables", Before: `[{"name":"A","value":"one"}]`, After: `[{"name":"A","value":"two"},{"name":"B","value":"three"}]`},
			`Changed the A variable's value of app "web". Added the variable B to app "web".`,
		},
	} {
		got := sentence(`app "web"`, []activity.Change{c.change})
		if got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
		if strings.Contains(got, "three") || strings.Contains(got, "two") {
			t.Errorf("a value is in %s", got)
		}
	}
}
