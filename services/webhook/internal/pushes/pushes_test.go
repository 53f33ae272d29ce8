package pushes

import (
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

func TestEvents_tellChangesThatCannotBeReadFromNone(t *testing.T) {
	const change = `{"new":{"type":"branch","name":"main","target":{"hash":"0123456789012345678901234567890123456789"}},"old":null}`
	for name, tt := range map[string]struct {
		body       string
		events     int
		at         int32
		unreadable int32
	}{
		"none":           {`{"push":{"changes":[]}}`, 1, 0, 0},
		"no list":        {`{"push":{}}`, 1, 0, 0},
		"one of two":     {`{"push":{"changes":[` + change + `,{"new":7}]}}`, 2, 1, 1},
		"all":            {`{"push":{"changes":[7,{"old":null,"new":null}]}}`, 1, 0, 2},
		"null among two": {`{"push":{"changes":[null,` + change + `]}}`, 2, 0, 1},
	} {
		push, err := hook.Parse([]byte(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		events := Events(Source{Webhook: &storev1.WebhookRecord{Id: "w"}, Delivery: &storev1.InboxDelivery{}, Number: 1, Push: Read(push)})
		if len(events) != tt.events {
			t.Fatalf("%s: %v", name, events)
		}
		last := events[len(events)-1]
		if last.GetAction() != eventsv1.PushEvent_UNKNOWN || last.GetUnreadable() != tt.unreadable || last.GetChange() != tt.at {
			t.Errorf("%s: %v", name, last)
		}
	}
}
