package reconcile

import (
	"testing"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

func TestAsked_tellsChangesThatCannotBeReadFromNone(t *testing.T) {
	for n, want := range map[int32][2]string{
		0: {"NO_CHANGES", "The delivery listed no changes"},
		1: {"CHANGE_UNREADABLE", "A change of the delivery cannot be read"},
		3: {"CHANGE_UNREADABLE", "3 changes of the delivery cannot be read"},
	} {
		if reason, said := asked(&storev1.Ask{Unreadable: n}); reason != want[0] || said != want[1] {
			t.Errorf("%d: %s, %q", n, reason, said)
		}
	}
}
