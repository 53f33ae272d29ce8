package registry

import (
	"errors"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

func TestEnsure_ofTwoMadeAtTheSameMomentOneStays(t *testing.T) {
	url := "https://devpilot.example.com/webhooks/bitbucket/x"
	want := wanted{repository: repo, fullName: "acme/web", url: url, secret: newSecret()}
	f := &fakeBitbucket{}
	// Another replica's create comes between our list and ours, with an older date or a newer one.
	for name, age := range map[string]time.Duration{"older": -time.Hour, "newer": 1000 * time.Hour} {
		f.set(func(f *fakeBitbucket) {
			f.hooks, f.made = nil, 0
			f.created = func() {
				f.set(func(f *fakeBitbucket) {
					f.hooks = append(f.hooks, bitbucket.Hook{UUID: "ffffffff-0000-4000-8000-000000000000", URL: url, Active: true, Events: events, SecretSet: true, CreatedAt: time.Unix(0, 0).Add(age)})
				})
			}
		})
		got, err := ensure(t.Context(), f, want)
		hooks := f.all()
		if err != nil || len(hooks) != 1 || got.uuid != hooks[0].UUID || got.deleted != 1 {
			t.Errorf("%s: %+v, %v, hooks %v", name, got, err, hooks)
		}
		if older := got.uuid[0] == 'f'; older != (name == "older") {
			t.Errorf("%s: kept %s", name, got.uuid)
		}
		if name == "older" && f.secrets[got.uuid] != want.secret.Reveal() {
			t.Error("the other one did not get our secret")
		}
	}
}

func TestEnsure_leavesOthersHooksAlone(t *testing.T) {
	url := "https://devpilot.example.com/webhooks/bitbucket/x"
	f := &fakeBitbucket{hooks: []bitbucket.Hook{
		{UUID: "a", URL: url + "/"}, {UUID: "b", URL: "https://devpilot.example.com/webhooks/bitbucket/y"}, {UUID: "c", URL: url, ReadOnly: true},
	}}
	want := wanted{repository: repo, fullName: "acme/web", url: url, secret: newSecret()}
	if _, err := ensure(t.Context(), f, want); err != nil || len(f.all()) != 4 {
		t.Errorf("hooks %v, %v", f.all(), err)
	}
	if _, err := remove(t.Context(), f, want); err != nil || len(f.all()) != 3 {
		t.Errorf("hooks after removing %v, %v", f.all(), err)
	}
}

func TestBackoff_doublesUpToItsLimit(t *testing.T) {
	timing := Timing{}.withDefaults()
	for n, want := range map[int32]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 30: time.Hour, 1 << 30: time.Hour} {
		for range 50 {
			if got := backoff(timing, n); got > want || got < want*3/4-1 {
				t.Fatalf("pause %d: %v, want %v less up to a quarter", n, got, want)
			}
		}
	}
}

func TestVault_bindsSecretsToTheirRecord(t *testing.T) {
	v := NewVault(testkit.Keyset(t))
	rec := &storev1.WebhookRecord{Workspace: ws, Id: NewID()}
	var err error
	if rec.Secret, err = v.fresh(rec, time.Now()); err != nil {
		t.Fatal(err)
	}
	secrets, versions, err := v.Open(rec, time.Now())
	if err != nil || len(secrets) != 1 || versions[0] != 1 || len(secrets[0].Reveal()) > 128 || len(secrets[0].Reveal()) < 32 {
		t.Fatalf("secrets %v, %v", versions, err)
	}
	copied := &storev1.WebhookRecord{Workspace: ws, Id: NewID(), Secret: rec.GetSecret()}
	if _, _, err := v.Open(copied, time.Now()); err == nil {
		t.Error("a secret opens in another record")
	}
}

func TestOpen_oldSecretEnds(t *testing.T) {
	v := NewVault(testkit.Keyset(t))
	rec := &storev1.WebhookRecord{Workspace: ws, Id: NewID()}
	now := time.Now()
	var err error
	if rec.OldSecret, err = v.fresh(rec, now); err != nil {
		t.Fatal(err)
	}
	rec.Secret = rec.GetOldSecret()
	if rec.Secret, err = v.fresh(rec, now); err != nil {
		t.Fatal(err)
	}
	if !ConfirmSecret(rec, now) || ConfirmSecret(rec, now) {
		t.Error("the first confirmation changes the record, the second does not")
	}
	for after, want := range map[time.Duration]int{0: 2, Overlap - time.Second: 2, Overlap: 1, Overlap + time.Hour: 1} {
		if secrets, _, err := v.Open(rec, now.Add(after)); err != nil || len(secrets) != want {
			t.Errorf("after %v: %d secrets, %v", after, len(secrets), err)
		}
	}
	if dropExpired(rec, now) || !dropExpired(rec, now.Add(Overlap)) || rec.GetOldSecret() != nil {
		t.Errorf("record %v", rec)
	}
}

func TestTemporary_knowsEveryReason(t *testing.T) {
	for _, row := range apierr.Table() {
		e := apierr.New(row.Reason, "x")
		if temporary(e) && byHand(string(row.Reason)) && row.Reason != apierr.ReasonConsumerRefused {
			t.Errorf("%s passes by itself and is for a person", row.Reason)
		}
	}
	if !errors.Is(apierr.New(apierr.ReasonNotRepositoryAdmin, "x"), apierr.FailedPrecondition) || temporary(apierr.New(apierr.ReasonNotRepositoryAdmin, "x")) {
		t.Error("NOT_REPOSITORY_ADMIN is for a person")
	}
}
