package app

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	maxVariables = 200 // variables of an app
	// maxValue is what Linux takes for one variable, with room for its name.
	maxValue = 120 << 10
	// maxValues keeps an app's record well below what the store takes in one message.
	maxValues = 512 << 10
)

var variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// setVariables replaces an app's variables. A secret one without a value keeps what it has; its
// value never leaves the store in plain, also not as a variable that is no secret any more.
func (s *Service) setVariables(a *storev1.App, in []*deployerv1.Variable, now time.Time, faults *apierr.Faults) error {
	const path = "app.variables"
	if len(in) > maxVariables {
		faults.Add(path, fmt.Sprintf("an app has at most %d variables", maxVariables))
		return nil
	}
	out := make([]*storev1.Variable, 0, len(in))
	seen := map[string]bool{}
	total := 0
	for i, v := range in {
		at := fmt.Sprintf("%s[%d].", path, i)
		checkVariable(at, v, faults)
		if seen[v.GetName()+" "+v.GetBranches()] {
			faults.Add(at+"name", twice(v))
		}
		seen[v.GetName()+" "+v.GetBranches()] = true
		made, problem, err := s.variable(a, v, now)
		if err != nil {
			return err
		}
		if problem != "" {
			faults.Add(at+"value", problem)
		}
		total += len(made.GetValue()) + len(made.GetSealed())
		out = append(out, made)
	}
	if total > maxValues {
		faults.Add(path, fmt.Sprintf("all values together may have %d KiB", maxValues>>10))
	}
	a.Variables = out
	return nil
}

func twice(v *deployerv1.Variable) string {
	if v.GetBranches() == "" {
		return fmt.Sprintf("%s is there twice", v.GetName())
	}
	return fmt.Sprintf("%s is there twice for %s", v.GetName(), v.GetBranches())
}

func checkVariable(at string, v *deployerv1.Variable, faults *apierr.Faults) {
	switch {
	case !variablePattern.MatchString(v.GetName()):
		faults.Add(at+"name", "a variable's name has letters, digits and underscores, 128 at most, and does not begin with a digit")
	case strings.HasPrefix(v.GetName(), "DEVPILOT_"):
		faults.Add(at+"name", "names that begin with DEVPILOT_ are Devpilot's own")
	}
	switch {
	case len(v.GetValue()) > maxValue:
		faults.Add(at+"value", fmt.Sprintf("is longer than %d KiB", maxValue>>10))
	case strings.ContainsRune(v.GetValue(), 0):
		faults.Add(at+"value", "has a NUL character, which no variable can hold")
	}
	if v.GetBranches() != "" {
		if err := rules.CheckBranch(v.GetBranches()); err != nil {
			faults.Add(at+"branches", err.Error())
		}
	}
}

// variable is the stored form of one variable, and what is wrong with its value, "" for nothing.
func (s *Service) variable(a *storev1.App, v *deployerv1.Variable, now time.Time) (made *storev1.Variable, problem string, err error) {
	var old *storev1.Variable
	if i := slices.IndexFunc(a.GetVariables(), func(x *storev1.Variable) bool {
		return x.GetName() == v.GetName() && x.GetBranches() == v.GetBranches()
	}); i >= 0 {
		old = a.GetVariables()[i]
	}
	made = &storev1.Variable{Name: v.GetName(), Branches: v.GetBranches(), UpdateTime: timestamppb.New(now)}
	if !v.GetSecret() {
		switch {
		case len(old.GetSealed()) > 0 && v.GetValue() == "":
			return made, fmt.Sprintf("%s is a secret: send secret: true to keep it, or the value that it is to have in plain", v.GetName()), nil
		case old != nil && len(old.GetSealed()) == 0 && old.GetValue() == v.GetValue():
			return old, "", nil
		}
		made.Value = v.GetValue()
		return made, "", nil
	}
	value := v.GetValue()
	if value == "" {
		switch {
		case len(old.GetSealed()) > 0:
			return old, "", nil
		case old.GetValue() == "":
			return made, fmt.Sprintf("give %s a value", v.GetName()), nil
		}
		value = old.GetValue() // becomes a secret
	}
	made.Sealed, err = s.cfg.Keyset.Seal([]byte(value), apps.Associated(a, v.GetName(), v.GetBranches()))
	if err != nil {
		return nil, "", fmt.Errorf("app: seal a variable: %w", err)
	}
	return made, "", nil
}

// shown is what people see of variables.
func shown(in []*storev1.Variable) []*deployerv1.Variable {
	out := make([]*deployerv1.Variable, 0, len(in))
	for _, v := range in {
		out = append(out, &deployerv1.Variable{Name: v.GetName(), Value: v.GetValue(), Branches: v.GetBranches(), Secret: len(v.GetSealed()) > 0, UpdateTime: v.GetUpdateTime()})
	}
	return out
}

// withoutValues blanks secret values: what is remembered of a request must not tell them.
func withoutValues(in []*deployerv1.Variable) {
	for _, v := range in {
		if v.GetSecret() {
			v.Value = ""
		}
	}
}
