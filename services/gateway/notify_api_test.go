package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/gateway"
)

// TestNotificationTargets_aTargetsLife adds, reads, changes and deletes one; its secrets are shown once,
// to whoever made it, and lie nowhere in clear.
func TestNotificationTargets_aTargetsLife(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	admin, member := g.key("acme", "ADMIN"), g.key("acme", "MEMBER")
	body := map[string]any{"requestId": "once-1", "target": map[string]any{
		"kind": "WEBHOOK", "label": "ops", "url": r.url, "events": []string{"DEPLOYMENT_FAILED", "APP_BEHIND"}, "apps": []string{"web"},
		"quietHours": map[string]any{"start": "22:00", "end": "07:00", "timeZone": "Europe/Berlin"},
	}}
	var made, again target
	admin.post(targetsPath, body).want(http.StatusOK).into(&made)
	admin.post(targetsPath, body).want(http.StatusOK).into(&again)
	if made != again || !strings.HasPrefix(made.Secret, "dpn_") || made.Target.Host == "" {
		t.Errorf("made %+v, and again %+v", made, again)
	}
	path := targetsPath + "/" + made.Target.ID
	for _, a := range []*answer{member.get(targetsPath), member.get(path), admin.get(path), admin.get("/v1/workspaces/acme/activity")} {
		a.want(http.StatusOK)
		for _, secret := range []string{made.Secret, "planted-url-secret", `"url"`} {
			if bytes.Contains(a.body, []byte(secret)) {
				t.Errorf("%s tells %s: %s", a.what, secret, a.body)
			}
		}
	}

	var got struct {
		Label         string
		BehindMinutes int
		Active        bool
		QuietHours    struct{ Start, End, TimeZone string }
		Etag          string
	}
	admin.send(http.MethodPatch, path, map[string]any{"label": "night", "quietHours": map[string]any{"end": "06:30"}, "etag": made.Target.Etag}).want(http.StatusOK).into(&got)
	if got.Label != "night" || got.BehindMinutes != 30 || !got.Active || got.QuietHours.Start != "22:00" || got.QuietHours.End != "06:30" {
		t.Errorf("%+v", got)
	}
	admin.send(http.MethodPatch, path, map[string]any{"label": "x", "etag": made.Target.Etag}).problem(http.StatusPreconditionFailed, "ETAG_MISMATCH")
	admin.send(http.MethodPatch, path+"?updateMask=quietHours", map[string]any{}).want(http.StatusOK)
	if a := member.get(path); bytes.Contains(a.body, []byte("quietHours")) {
		t.Errorf("%s", a.body)
	}

	var rotated target
	admin.post(path+":rotateSecret", map[string]any{"requestId": "once-2"}).want(http.StatusOK).into(&rotated)
	admin.post(path+":rotateSecret", map[string]any{"requestId": "once-2"}).want(http.StatusOK).into(&again)
	if rotated.Secret != again.Secret || rotated.Secret == made.Secret {
		t.Error("rotated twice by a repeat, or not at all")
	}
	var attempt struct {
		Delivered bool
		Status    int
	}
	admin.post(path+":test", map[string]any{}).want(http.StatusOK).into(&attempt)
	sent := r.want(t, 1)[0]
	if !attempt.Delivered || attempt.Status != http.StatusNoContent || !checkSignature(rotated.Secret, sent.signature, sent.body) || !checkSignature(made.Secret, sent.signature, sent.body) {
		t.Errorf("%+v, %s", attempt, sent.signature)
	}
	admin.post(path+":test", map[string]any{}).problem(http.StatusTooManyRequests, "RATE_LIMITED")
	g.clock.forward(25 * time.Hour) // the old secret's time is over
	admin.post(path+":test", map[string]any{}).want(http.StatusOK)
	if sent := r.want(t, 2)[1]; checkSignature(made.Secret, sent.signature, sent.body) || !checkSignature(rotated.Secret, sent.signature, sent.body) {
		t.Errorf("after a day: %s", sent.signature)
	}
	if log := g.attempts(made.Target.ID); len(log.Attempts) != 2 {
		t.Errorf("%+v", log)
	}

	testkit.Eventually(t, 10*time.Second, func() error { // the activity list is written a moment later
		list := string(admin.get("/v1/workspaces/acme/activity").want(http.StatusOK).body)
		for _, action := range []string{"notificationTarget.create", "notificationTarget.update", "notificationTarget.rotateSecret", "notificationTarget.test", `"quietHours.end"`} {
			if !strings.Contains(list, action) {
				return fmt.Errorf("no %s in %s", action, list)
			}
		}
		return nil
	})
	g.nowhereInTheStore(made.Secret, rotated.Secret, "planted-url-secret")
	g.logs.MustNotContain(t, made.Secret, rotated.Secret, "planted-url-secret")
	admin.do(http.MethodDelete, path, nil).want(http.StatusOK)
	admin.do(http.MethodDelete, path, nil).problem(http.StatusNotFound, "NOTIFICATION_TARGET_NOT_FOUND")
	member.get(path+"/attempts").problem(http.StatusNotFound, "NOTIFICATION_TARGET_NOT_FOUND")
}

// nowhereInTheStore reads every message of every stream.
func (g *gate) nowhereInTheStore(secrets ...string) {
	g.t.Helper()
	ctx := context.Background()
	seen := 0
	for name := range g.js.StreamNames(ctx).Name() {
		st, err := g.js.Stream(ctx, name)
		if err != nil {
			g.t.Fatal(err)
		}
		info, err := st.Info(ctx)
		if err != nil {
			g.t.Fatal(err)
		}
		for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
			m, err := st.GetMsg(ctx, seq)
			if err != nil {
				continue // replaced
			}
			seen++
			for _, s := range secrets {
				if bytes.Contains(m.Data, []byte(s)) {
					g.t.Errorf("%s of %s holds %q in clear", m.Subject, name, s)
				}
			}
		}
	}
	if seen == 0 {
		g.t.Error("nothing was read")
	}
}

// TestNotificationTargets_faults: all that is wrong is told at once, by the names of the body.
func TestNotificationTargets_faults(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	owner := g.withToken(adminToken)
	fields := func(p problem) (names []string) {
		for _, f := range p.Fields {
			names = append(names, f.Name)
		}
		slices.Sort(names)
		return names
	}
	for _, c := range []struct {
		target map[string]any
		want   []string
	}{
		{map[string]any{}, []string{"target.events", "target.kind", "target.label"}},
		{map[string]any{"kind": "WEBHOOK", "label": "x", "events": []string{"CONNECTION", "CONNECTION"}}, []string{"target.events[1]", "target.url"}},
		{map[string]any{"kind": "WEBHOOK", "label": "x", "events": []string{"CONNECTION"}, "url": "http://hooks.example.com/"}, []string{"target.url"}},
		{map[string]any{"kind": "SLACK", "label": "x", "events": []string{"CONNECTION"}, "url": "https://u:p@hooks.example.com/"}, []string{"target.url"}},
		{map[string]any{"kind": "SLACK", "label": "x", "events": []string{"CONNECTION"}, "url": "https://127.0.0.1/"}, []string{"target.url"}},
		{map[string]any{"kind": "SLACK", "label": "x", "events": []string{"CONNECTION"}, "url": "https://[::ffff:169.254.169.254]/"}, []string{"target.url"}},
		{map[string]any{"kind": "SLACK", "label": "two\nlines", "events": []string{"CONNECTION"}, "url": "https://hooks.example.com:0/"}, []string{"target.label", "target.url"}},
		{map[string]any{"kind": "SLACK", "label": "x", "events": []string{"CONNECTION"}, "url": "https://hooks.example.com:65536/"}, []string{"target.url"}},
		{map[string]any{"kind": "SLACK", "label": "x", "events": []string{"CONNECTION"}, "url": "gopher://hooks.example.com/"}, []string{"target.url"}},
		{map[string]any{"kind": "EMAIL", "label": "x", "events": []string{"CONNECTION"}, "recipients": []string{"jane@example.com", "Jane <jane@example.com>"}}, []string{"target.kind", "target.recipients[1]"}},
		{map[string]any{
			"kind": "WEBHOOK", "label": "x", "url": "https://hooks.example.com/", "events": []string{"CONNECTION"}, "behindMinutes": 9999, "apps": []string{"a b"},
			"quietHours": map[string]any{"start": "25:00", "end": "7", "timeZone": "Mars/Olympus"},
		}, []string{"target.apps[0]", "target.behindMinutes", "target.quietHours.end", "target.quietHours.start", "target.quietHours.timeZone"}},
	} {
		p := owner.post(targetsPath, map[string]any{"target": c.target}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
		if got := fields(p); !slices.Equal(got, c.want) {
			t.Errorf("%v: fields %v, not %v", c.target, got, c.want)
		}
	}
	// What people call other things is one line too.
	owner.post("/v1/workspaces", map[string]any{"workspaceId": "lines", "displayName": "a\nb", "validateOnly": true}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	owner.post("/v1/workspaces/default/apiKeys", map[string]any{"label": "a\x00b", "role": "MEMBER", "validateOnly": true}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	made := g.addTarget("SLACK", "https://hooks.example.com/x", nil, "CONNECTION")
	p := owner.send(http.MethodPatch, targetsPath+"/"+made.Target.ID, map[string]any{"kind": "EMAIL", "label": ""}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	if got := fields(p); !slices.Equal(got, []string{"kind", "label"}) {
		t.Errorf("fields of a PATCH: %v", got)
	}
	owner.post(targetsPath+"/"+made.Target.ID+":rotateSecret", map[string]any{}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	for range 19 {
		g.addTarget("SLACK", "https://hooks.example.com/x", nil, "CONNECTION")
	}
	owner.post(targetsPath, map[string]any{"target": map[string]any{"kind": "SLACK", "label": "x", "url": "https://hooks.example.com/x", "events": []string{"CONNECTION"}}}).
		problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	var page struct {
		Targets       []any
		NextPageToken string
	}
	owner.get(targetsPath + "?pageSize=15").want(http.StatusOK).into(&page)
	owner.get(targetsPath + "?pageSize=15&pageToken=" + page.NextPageToken).want(http.StatusOK).into(&page)
	if len(page.Targets) != 5 || page.NextPageToken != "" {
		t.Errorf("second page of %d, then %q", len(page.Targets), page.NextPageToken)
	}
}

// TestNotify_slack: a failed deployment as a Slack-compatible server gets it. What a log says cannot
// ring for a channel nor make a link.
func TestNotify_slack(t *testing.T) {
	g := start(t, allowLoopback, func(c *gateway.Config) {})
	g.workspace("acme")
	r := newReceiver(t)
	g.addTarget("SLACK", r.url, nil, "DEPLOYMENT_FAILED")
	h := g.history()
	h.logs = lines("build", "<!channel> & ``` <https://evil.example|here>")
	h.ended("web", 7, failed, "a")
	got := r.want(t, 1)[0]
	var body struct {
		Text   string
		Blocks []struct {
			Type string
			Text struct{ Type, Text string }
		}
	}
	if err := json.Unmarshal(got.body, &body); err != nil {
		t.Fatal(err)
	}
	if len(body.Blocks) != 2 || body.Text != "✗ web: deployment #7 failed: hook build, exit 3" || got.signature != "" {
		t.Fatalf("%s", got.body)
	}
	first, second := body.Blocks[0].Text.Text, body.Blocks[1].Text.Text
	if !strings.Contains(first, "/w/acme/apps/web/deployments/7|") || body.Blocks[0].Type != "section" || body.Blocks[0].Text.Type != "mrkdwn" {
		t.Error(first)
	}
	if second != "```\n&lt;!channel&gt; &amp; ''' &lt;https://evil.example|here&gt;\n```" {
		t.Error(second)
	}
}
