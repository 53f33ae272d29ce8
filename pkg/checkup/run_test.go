package checkup_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/seal"
)

// Checks are told in the order of their tasks; one that does not end fails alone.
func TestRun_oneThatDoesNotEnd(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	well := func(context.Context) checkup.Check { return checkup.Well("It is.") }
	checks := checkup.Run(t.Context(), []checkup.Task{
		{Name: "first", Run: well}, {Name: "hangs", Run: func(context.Context) checkup.Check { <-hang; return checkup.Check{} }}, {Name: "same", Where: "here", Run: well}, {Name: "same", Where: "there", Run: well},
	}, checkup.How{Limit: 50 * time.Millisecond, Late: "Ask again."})
	if c := checks[1]; c.State != checkup.Failed || c.Found != "It did not end within 50ms." || c.Remedy != "Ask again." {
		t.Errorf("%+v", c)
	}
	for i, want := range []string{"first ", "hangs ", "same here", "same there"} {
		if got := checks[i].Name + " " + checks[i].Where; got != want {
			t.Errorf("check %d is %q, not %q", i, got, want)
		}
	}
	if got := checkup.Worst(checks); got != checkup.Failed {
		t.Errorf("the worst is %s", got)
	}
}

// What is secret in settings is in no check, whatever an error quotes.
func TestRun_showsNoSecret(t *testing.T) {
	settings := struct {
		NATS   struct{ URL seal.Secret }
		Secret seal.Secret
		Empty  seal.Secret
		public string
	}{Secret: seal.NewSecret("pl4nted-1"), public: "shown"}
	settings.NATS.URL = seal.NewSecret("redis://user:pl4nted-2@host:1/0?sentinel_password=pl4nted-3,nats://pl4nted-4@host:2")
	secrets := checkup.SecretsOf(&settings)
	if slices.Contains(secrets, "") {
		t.Error("an empty text is taken for a secret")
	}
	checks := checkup.Run(t.Context(), []checkup.Task{{Name: "quotes", Run: func(context.Context) checkup.Check {
		return checkup.Fail("It says "+settings.NATS.URL.Reveal()+" and "+settings.Secret.Reveal()+" and "+settings.public+".", "Not pl4nted-2.")
	}}}, checkup.How{Limit: time.Minute, Secrets: secrets})
	if said := checks[0].Found + checks[0].Remedy; strings.Contains(said, "pl4nted") || !strings.Contains(said, "shown") {
		t.Error(said)
	}
}
