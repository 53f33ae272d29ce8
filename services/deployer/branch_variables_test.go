package deployer_test

import (
	"slices"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// branchVariables are a value for all branches, for a pattern of them, and for one of those.
func branchVariables(secret string) []*deployerv1.Variable {
	return []*deployerv1.Variable{
		{Name: "COLOR", Value: "grey"},
		{Name: "COLOR", Value: "green", Branches: "release/*"},
		{Name: "COLOR", Value: "late", Branches: "release/**"},
		{Name: "COLOR", Value: "red", Branches: "release/two"},
		{Name: "API_TOKEN", Value: secret, Secret: true, Branches: "release/two"},
	}
}

// onBranch deploys the head of a branch and returns what the hook printed.
func (b *bench) onBranch(branch string) []string {
	b.t.Helper()
	b.repo.Commit(branch, "commit on "+branch, map[string]string{"index.html": branch})
	resp, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web", Branch: branch})
	if err != nil {
		b.t.Fatal(err)
	}
	n := resp.GetDeployment().GetNumber()
	b.await("web", n, deployerv1.Deployment_COMPLETED)
	return b.printed("web", n, "show")
}

func TestVariables_aBranchsOwnValueIsSeenThereAndNowhereElse(t *testing.T) {
	b := newBench(t)
	a := withHooks(hookAt(postSetup, "show", `echo "color: $COLOR"; echo "token: $(printf %s "$API_TOKEN" | sha256sum | cut -d' ' -f1)"`))
	a.Branch, a.Variables = "**", branchVariables(plantedSecret)
	b.create("web", a)
	for branch, want := range map[string][]string{
		"main":          {"color: grey", "token: " + digest("")},
		"release/one":   {"color: green", "token: " + digest("")},
		"release/a/b":   {"color: late", "token: " + digest("")},
		"release/two":   {"color: red", "token: " + digest(plantedSecret)},
		"release/two-b": {"color: green", "token: " + digest("")},
	} {
		if got := b.onBranch(branch); !slices.Equal(got, want) {
			t.Errorf("%s: the hook saw %q, want %q", branch, got, want)
		}
	}
}

func TestVariables_aBranchsSecretIsNeverReadBackAndStaysWithItsBranch(t *testing.T) {
	b := newBench(t)
	a := withHooks(hookAt(postSetup, "show", `printf %s "$API_TOKEN" | sha256sum | cut -d' ' -f1`))
	a.Branch, a.Variables = "release/*", branchVariables(plantedSecret)
	b.create("web", a)
	got := b.get("web").GetVariables()
	if len(got) != 5 || got[4].GetBranches() != "release/two" || !got[4].GetSecret() || got[4].GetValue() != "" {
		t.Fatalf("shown: %v", got)
	}
	noSecretIn(t, "the app", text(b.get("web")))
	// Saved as it was shown, it keeps what it has; under another branch it has nothing to keep.
	b.update("web", &deployerv1.App{Variables: got}, "variables")
	if lines := b.onBranch("release/two"); !slices.Equal(lines, []string{digest(plantedSecret)}) {
		t.Errorf("kept: %q", lines)
	}
	moved := b.get("web").GetVariables()
	moved[4].Branches = "release/one"
	if _, err := b.tryUpdate("web", &deployerv1.App{Variables: moved}, "variables"); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("the secret of one branch became another's: %v", err)
	}
	noSecretIn(t, "the deployer's log", b.logs.Text())
}

func TestVariables_branchesThatAreNone(t *testing.T) {
	b := newBench(t)
	b.create("web", web(false))
	for what, vars := range map[string][]*deployerv1.Variable{
		"no name of a branch": {{Name: "A", Value: "1", Branches: "a b"}},
		"no pattern":          {{Name: "A", Value: "1", Branches: "release/[a"}},
		"twice for a branch":  {{Name: "A", Value: "1", Branches: "x"}, {Name: "A", Value: "2", Branches: "x"}},
		"twice for all":       {{Name: "A", Value: "1"}, {Name: "A", Value: "2"}},
	} {
		if _, err := b.tryUpdate("web", &deployerv1.App{Variables: vars}, "variables"); !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
