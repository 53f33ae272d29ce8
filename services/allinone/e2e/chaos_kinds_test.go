package e2e

import (
	"fmt"
	"net/http"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// chaosKind is a kind of trouble.
type chaosKind struct {
	name string
	// most is how often one repository has it at most, so far apart; 0 is no bound.
	most  int
	apart time.Duration
	// begin makes the trouble; its answer ends it.
	begin func(h *half, repo repository) (end func())
	// shows says what must be seen while it lasts, beside that nothing is untrue; nil is nothing.
	shows func(h *half, repo repository) error
}

// faulty is trouble that Bitbucket has with all that the account asks for.
func faulty(name string, fault emulator.Fault) chaosKind {
	return chaosKind{name: name, begin: func(h *half, _ repository) func() {
		fault.Account = h.account
		ids := h.g.inject(h.t, []emulator.Fault{fault}, func(*emulator.Fault) {})
		return func() { h.g.lift(h.t, ids) }
	}}
}

// astray is trouble with the deliveries of one repository.
func astray(name string, kind emulator.FaultKind) chaosKind {
	return chaosKind{name: name, begin: func(h *half, repo repository) func() {
		ids := h.g.inject(h.t, []emulator.Fault{{Kind: kind, Repository: repo.name, Delay: 3 * time.Second}}, func(*emulator.Fault) {})
		return func() { h.g.lift(h.t, ids) }
	}}
}

// edited is a webhook that somebody changed on Bitbucket; it is put right without anybody.
func edited(name string, change object) chaosKind {
	return chaosKind{name: name, begin: func(h *half, repo repository) func() {
		h.changeHook(repo, change)
		return func() {}
	}}
}

// seldom bounds a kind of trouble that is mended later each time, for the pause before it doubles: who sends signatures
// that are wrong for ever is not to have the secret written for ever.
func seldom(most int, apart time.Duration, k chaosKind) chaosKind {
	k.most, k.apart = most, apart
	return k
}

var chaosKinds = []chaosKind{
	faulty("Bitbucket down", emulator.Fault{Status: http.StatusServiceUnavailable}),
	faulty("Bitbucket slow", emulator.Fault{Kind: emulator.FaultSlow, Delay: 2 * time.Second}),
	faulty("429", emulator.Fault{Status: http.StatusTooManyRequests, RetryAfter: time.Second}),
	faulty("wrong bodies", emulator.Fault{Kind: emulator.FaultWrongBody}),
	faulty("connections reset", emulator.Fault{Kind: emulator.FaultReset}),
	astray("deliveries dropped", emulator.FaultDropDelivery),
	astray("deliveries doubled", emulator.FaultDuplicateDelivery),
	astray("deliveries out of order", emulator.FaultOutOfOrderDelivery),
	astray("deliveries late", emulator.FaultLateDelivery),
	{name: "webhook deleted", begin: func(h *half, repo repository) func() {
		if err := h.g.site().RemoveHook(h.t.Context(), onlyHook(h.t, h.g.site(), repo)); err != nil {
			h.t.Fatal(err)
		}
		return func() {}
	}},
	edited("webhook's URL changed", object{"url": "http://127.0.0.1:9/elsewhere"}),
	edited("webhook's events changed", object{"events": []string{"repo:fork"}}),
	seldom(3, 10*time.Minute, edited("webhook's secret changed", object{"secret": "another secret of somebody else"})),
	{
		name: "webhook deactivated",
		begin: func(h *half, repo repository) func() {
			h.changeHook(repo, object{"active": false})
			return func() { // on purpose, perhaps: a person puts it right
				id := dig(h.api.get(h.path("/apps/%s", h.app(repo, "main"))), "webhook", "id")
				h.api.must("POST", h.path("/webhooks/%v:repair", id), object{})
			}
		},
		shows: func(h *half, repo repository) error {
			app := h.api.get(h.path("/apps/%s", h.app(repo, "main")))
			if state := dig(app, "webhook", "state"); state == "ACTIVE" || dig(app, "webhook", "message") == nil {
				return fmt.Errorf("the webhook that was switched off is called %v: %v", state, app["webhook"])
			}
			return nil
		},
	},
	{
		name: "access revoked",
		begin: func(h *half, _ repository) func() {
			h.revoke()
			return func() { h.g.connect(h.tenant, h.account) }
		},
		shows: func(h *half, _ repository) error {
			integration := h.api.get(h.path("/integrations/bitbucket"))
			if integration["state"] == "CONNECTED" && integration["lastError"] == nil {
				return fmt.Errorf("the connection that was revoked is called %v", integration["state"])
			}
			return nil
		},
	},
}
