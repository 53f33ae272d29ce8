package rest

import (
	"maps"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// Every field that a person can change has words of its own.
func TestSentence_everyFieldHasWords(t *testing.T) {
	left := maps.Clone(namedFields)
	for _, m := range []proto.Message{&deployerv1.App{}, &gatewayv1.NotificationTarget{}} {
		for _, name := range changeable("", m.ProtoReflect().Descriptor()) {
			if _, ok := namedFields[name]; !ok {
				t.Errorf("%T: %s is told without words", m, name)
			}
			delete(left, name)
		}
	}
	for name := range left {
		t.Errorf("%s is no field that can be changed", name)
	}
}

// changeable lists the fields of a message that people set, and those below. What is told item by item, and what
// is no change by itself, is left out.
func changeable(path string, m protoreflect.MessageDescriptor) (names []string) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := path + f.JSONName()
		if routes.Is(f, annotations.FieldBehavior_OUTPUT_ONLY) || name == "hooks" || name == "variables" || name == "etag" {
			continue
		}
		names = append(names, name)
		if f.Message() != nil && !f.IsList() {
			names = append(names, changeable(name+".", f.Message())...)
		}
	}
	return names
}

func TestSentence(t *testing.T) {
	for _, c := range []struct {
		change activity.Change
		want   string
	}{
		{activity.Change{Field: "autoDeploy", Before: "true", After: "false"}, `Switched auto-deploy of app "web" off.`},
		{activity.Change{Field: "branch", Before: `"main"`, After: `"next"`}, `Changed the branch of app "web" from main to next.`},
		{activity.Change{Field: "sharedPaths", Before: "", After: `["uploads/","a"]`}, `Set the shared paths of app "web" to uploads/, a.`},
		{activity.Change{Field: "source.directory", Before: `"dist"`, After: `""`}, `Emptied the directory in the repository of app "web", which was dist.`},
		{activity.Change{Field: "retention", Before: "5", After: "7"}, `Changed the number of releases kept of app "web" from 5 to 7.`},
		{activity.Change{Field: "serve.directory", Before: "", After: `"."`}, `Set the directory that is served of app "web" to ".".`},
		{activity.Change{Field: "label", Before: `"ops"`, After: `"the night shift"`}, `Changed the name of app "web" from ops to "the night shift".`},
		{activity.Change{Field: "quietHours", Before: "", After: `{"start":"22:00"}`}, `Changed the quiet hours of app "web".`},
		{activity.Change{Field: "branch", Before: `"main"`, After: `"a\nb"`}, `Changed the branch of app "web".`},
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
