package e2e

import (
	"fmt"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// lostAndHealed is the story of a delivery that Bitbucket never sent: the push is found and live all the same,
// the app and the webhook say what is missing, and both are well by themselves once a delivery comes again.
func lostAndHealed(c *cause) {
	c.live()
	hook := fmt.Sprint(dig(c.lights("one", "REGISTERED"), "webhook", "id"))
	ids := c.g.inject(c.t, []emulator.Fault{{Kind: emulator.FaultDropDelivery, Repository: c.repo.name}}, func(*emulator.Fault) {})
	lost := c.push("two")
	found := c.tenant.live("web", lost)
	if found["trigger"] != "RECONCILED" {
		c.t.Errorf("a push without a delivery was deployed as %v", found["trigger"])
	}
	app := c.lights(lost, "DELIVERIES_MISSING")
	if said := fmt.Sprint(dig(app, "webhook", "healthMessage")); said == "" || dig(app, "webhook", "healthTime") == nil {
		c.t.Errorf("what is missing is not told: %v", app["webhook"])
	}
	// Found without a delivery, it is in the list of deliveries all the same, and no other push is.
	if list := c.deliveries(hook); len(list) != 2 || list[0]["found"] == nil || list[1]["found"] != nil {
		c.t.Errorf("deliveries: %v", list)
	}
	if hits := c.g.lift(c.t, ids); hits == 0 {
		c.t.Fatal("no delivery was lost")
	}
	c.lights(lost, "DELIVERIES_MISSING") // that the way is free again, nobody knows before a delivery comes
	came := c.push("three")
	if d := c.tenant.live("web", came); d["trigger"] != "PUSH" {
		c.t.Errorf("a push with a delivery was deployed as %v", d["trigger"])
	}
	if dig(c.lights(came, "REGISTERED"), "webhook", "healthMessage") != nil {
		c.t.Error("an old trouble is told of a webhook that is well")
	}
}

// lights waits until the app has a push live and says so, and app and webhook have the same word for how the
// webhook is.
func (c *cause) lights(page, health string) object {
	c.t.Helper()
	app := c.await(c.path("/apps/web"), func(a object) error {
		if dig(a, "sync", "state") != "IN_SYNC" || len(page) == 40 && dig(a, "sync", "commit") != page || dig(a, "webhook", "health") != health {
			return fmt.Errorf("sync %v, webhook %v; want %s in sync, %s", a["sync"], a["webhook"], page, health)
		}
		return nil
	})
	c.await(c.path("/webhooks/%v", dig(app, "webhook", "id")), func(h object) error {
		if h["health"] != health {
			return fmt.Errorf("the webhook is %v, its app says %s", h["health"], health)
		}
		return nil
	})
	return app
}
