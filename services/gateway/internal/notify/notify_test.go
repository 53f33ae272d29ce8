package notify

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func TestAddresses_private(t *testing.T) {
	a, err := ParseAddresses([]string{"10.20.0.0/24", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "10.20.0.7": true, "127.0.0.1": true, "::ffff:127.0.0.1": true,
		"127.0.0.2": false, "10.20.1.1": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "0.0.0.0": false, "100.64.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false, "fd00::1": false, "::ffff:10.0.0.1": false, "::10.0.0.1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false, "2001::1": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "198.18.0.1": false,
	} {
		if err := a.Check(netip.MustParseAddr(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		// The same when it is what a name leads to at the moment of the connection.
		if err := a.control("tcp", netip.AddrPortFrom(netip.MustParseAddr(text), 443).String(), nil); (err == nil) != ok {
			t.Errorf("connection to %s: %v", text, err)
		}
	}
	if _, err := ParseAddresses([]string{"localhost"}); err == nil {
		t.Error("a name was taken for an address")
	}
}

func TestQuietUntil(t *testing.T) {
	night := &gatewayv1.QuietHours{Start: "22:00", End: "07:00", TimeZone: "Europe/Berlin"}
	noon := &gatewayv1.QuietHours{Start: "12:00", End: "13:00", TimeZone: "UTC"}
	for _, c := range []struct {
		q         *gatewayv1.QuietHours
		at, until string
	}{
		{night, "2026-07-01T19:59:00Z", ""},
		{night, "2026-07-01T20:00:00Z", "2026-07-02T05:00:00Z"},
		{night, "2026-07-02T04:59:59Z", "2026-07-02T05:00:00Z"},
		{night, "2026-07-02T05:00:00Z", ""},
		{night, "2026-03-28T23:00:00Z", "2026-03-29T05:00:00Z"}, // the clocks go forward
		{night, "2026-10-24T22:00:00Z", "2026-10-25T06:00:00Z"}, // and back
		{noon, "2026-07-01T12:30:00Z", "2026-07-01T13:00:00Z"},
		{noon, "2026-07-01T11:59:59Z", ""},
		{nil, "2026-07-01T12:30:00Z", ""},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if until := quietUntil(c.q, at); !until.IsZero() {
			got = until.UTC().Format(time.RFC3339)
		}
		if got != c.until {
			t.Errorf("%v at %s: until %q, not %q", c.q, c.at, got, c.until)
		}
	}
}

func note1(id string) *gatewaystorev1.Notification {
	return &gatewaystorev1.Notification{Id: id, Title: strings.Repeat("t", 300), Text: strings.Repeat("x", 3000), Time: timestamppb.Now(), Lines: []string{strings.Repeat("l", 900)}}
}

// TestQueue_killsBetweenWrites goes through all places at which a replica can die between two writes:
// the receiver gets the same id again or nothing, and what it took is not sent again.
func TestQueue_killsBetweenWrites(t *testing.T) {
	now := time.Now()
	target := &gatewayv1.NotificationTarget{}
	q, err := enqueue(nil, note1("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enqueue(proto.CloneOf(q), note1("a")); !errors.Is(err, kv.ErrSkip) {
		t.Fatalf("a repeat of what was put in before a death: %v", err)
	}
	first := proto.CloneOf(claim(q, target, now)) // dies before or after it sent
	if claim(q, target, now.Add(time.Second)) != nil {
		t.Fatal("two replicas send at once")
	}
	if q, err = enqueue(q, note1("b")); err != nil {
		t.Fatal(err)
	}
	second := proto.CloneOf(claim(q, target, now.Add(takeOver))) // another takes over
	if second.GetId() != first.GetId() || len(second.GetNotifications()) != 1 || second.GetAttempts() != 2 {
		t.Fatalf("%v after %v", second, first)
	}
	noteAttempt(q, first, &gatewayv1.NotificationAttempt{}, 0, now.Add(takeOver)) // the first says late that it failed
	if q.GetSending() == nil || !q.GetSending().GetNextTime().AsTime().Equal(now.Add(2*takeOver).UTC()) {
		t.Fatal("a late word changed what another replica does")
	}
	noteAttempt(q, second, &gatewayv1.NotificationAttempt{Delivered: true}, 0, now.Add(takeOver))
	if q.GetSending() != nil {
		t.Fatal("sent and not noted")
	}
	if next := claim(q, target, now.Add(takeOver)); next.GetId() != "b" {
		t.Fatalf("next %v", next)
	}
	if _, err := enqueue(q, note1("a")); !errors.Is(err, kv.ErrSkip) {
		t.Error("sent again after it arrived")
	}
}

// TestQueue_isBounded: whatever comes in, the record stays far below what the store takes.
func TestQueue_isBounded(t *testing.T) {
	var q *gatewaystorev1.NotificationQueue
	var err error
	for i := range 5000 {
		n := note1(idOf(fmt.Sprint(i)))
		for range 100 {
			n.Lines = append(n.Lines, strings.Repeat("l", 900))
		}
		if q, err = enqueue(q, bounded(n)); err != nil {
			t.Fatal(err)
		}
		if i == 200 {
			claim(q, &gatewayv1.NotificationTarget{}, time.Now())
		}
		note(q, &gatewayv1.NotificationAttempt{Title: "x", Message: "y"})
	}
	if size := proto.Size(q); size > 600<<10 {
		t.Errorf("%d bytes", size)
	}
	if q.GetDropped()+int32(len(q.GetWaiting()))+q.GetSending().GetDropped()+int32(len(q.GetSending().GetNotifications())) != 5000 {
		t.Error("some are neither there nor counted")
	}
}

func TestRetryPause_growsToAnHour(t *testing.T) {
	for attempt := 1; attempt < 100; attempt++ {
		d := retryPause(attempt)
		if d < retryFirst*3/4 || d > retryMost {
			t.Errorf("attempt %d: %s", attempt, d)
		}
	}
}

func TestNeedsPerson(t *testing.T) {
	steps, again := []string{"Open the settings."}, timestamppb.Now()
	for name, c := range map[string]struct {
		hook *webhookv1.Webhook
		want bool
	}{
		"active":                        {&webhookv1.Webhook{State: webhookv1.Webhook_ACTIVE}, false},
		"switched off on purpose":       {&webhookv1.Webhook{State: webhookv1.Webhook_DRIFTED, Reason: "WEBHOOK_DEACTIVATED", RetryTime: again}, true},
		"to be added by hand, asked on": {&webhookv1.Webhook{State: webhookv1.Webhook_NOT_REGISTERED, Reason: "NOT_REPOSITORY_ADMIN", ManualSteps: steps, RetryTime: again}, true},
		"tried again":                   {&webhookv1.Webhook{State: webhookv1.Webhook_NOT_REGISTERED, Reason: "BITBUCKET_UNAVAILABLE", RetryTime: again}, false},
		"without a public URL":          {&webhookv1.Webhook{State: webhookv1.Webhook_NOT_REGISTERED, Reason: "NO_PUBLIC_URL"}, false},
		"without a connection":          {&webhookv1.Webhook{State: webhookv1.Webhook_NOT_REGISTERED, Reason: "NOT_CONNECTED"}, false},
		"its new secret is not there":   {&webhookv1.Webhook{State: webhookv1.Webhook_MANUAL, ManualSteps: steps}, true},
		"by hand and well":              {&webhookv1.Webhook{State: webhookv1.Webhook_MANUAL}, false},
		"by hand, another secret":       {&webhookv1.Webhook{State: webhookv1.Webhook_MANUAL, Health: webhookv1.Webhook_SECRET_CHANGED}, true},
		"by hand, lost deliveries":      {&webhookv1.Webhook{State: webhookv1.Webhook_MANUAL, Health: webhookv1.Webhook_DELIVERIES_MISSING}, true},
		"ours, lost deliveries":         {&webhookv1.Webhook{State: webhookv1.Webhook_ACTIVE, Health: webhookv1.Webhook_DELIVERIES_MISSING}, false},
		"not an admin any more":         {&webhookv1.Webhook{State: webhookv1.Webhook_ACTIVE, Health: webhookv1.Webhook_NOT_ADMIN}, true},
		"left":                          {&webhookv1.Webhook{State: webhookv1.Webhook_LEFT_ON_BITBUCKET, ManualSteps: steps}, false},
	} {
		if got := needsPerson(c.hook); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[31mred\x1b[0m": "red", "\x1b]0;title\x07x": "x", "a\rb\x00c": "abc", "a\tb": "a\tb", "\xff": "�", "\x1b[": "[",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}
