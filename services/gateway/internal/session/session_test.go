package session

import (
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// A cookie that an earlier key sealed is replaced when it is used, so that the key can go without signing anybody out.
func TestManager_aCookieOfAnEarlierKeyIsReplaced(t *testing.T) {
	old := testkit.Keyset(t)
	added, id, err := old.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	now, err := added.Promote(id)
	if err != nil {
		t.Fatal(err)
	}
	before, after := NewManager(Config{Keyset: old, Now: time.Now}), NewManager(Config{Keyset: now, Now: time.Now})
	begun := time.Now().UTC()
	value, _, err := before.Seal(Session{ID: "id", Subject: "local:owner", CreateTime: begun, EndTime: begun.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := before.open(value); err != nil || s.Renew {
		t.Errorf("by the key that sealed it: renew %v, %v", s.Renew, err)
	}
	s, err := after.open(value)
	if err != nil || !s.Renew {
		t.Fatalf("by the next one: renew %v, %v", s.Renew, err)
	}
	if value, _, err = after.Seal(s); err != nil {
		t.Fatal(err)
	}
	if s, err := after.open(value); err != nil || s.Renew {
		t.Errorf("the cookie in its place: renew %v, %v", s.Renew, err)
	}
}
