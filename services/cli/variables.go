package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

func (a *app) variables() *cobra.Command {
	list := a.new("list APP", "List the variables that hooks see; those that are secret without their value", 1, 1, func(ctx context.Context, s *session, words []string) error {
		one, err := s.api.GetApp(ctx, s.ws, words[0], nil)
		if err != nil {
			return err
		}
		return s.showVariables(one)
	})
	return group("variables", "Variables of an app: list, set, unset", list, a.setVariable(), a.unsetVariable())
}

func (s *session) showVariables(one *devpilot.App) error {
	rows := make([][]string, 0, len(one.Variables))
	for _, v := range one.Variables {
		value := text(v.Value)
		if v.Secret {
			value = "(secret)"
		}
		rows = append(rows, []string{v.Name, text(v.Branches), value})
	}
	return s.show(one.Variables, "NAME BRANCHES VALUE", rows)
}

func (a *app) setVariable() *cobra.Command {
	var secret bool
	var branches string
	c := a.new("set APP NAME [VALUE]", "Set a variable; a secret one from a prompt or standard input", 2, 3, func(ctx context.Context, s *session, words []string) error {
		v := devpilot.VariableInput{Name: words[1], Secret: &secret, Branches: some(branches)}
		switch {
		case len(words) == 3 && secret:
			return usage{errors.New("a secret does not belong on a command line, where others can read it: leave VALUE out and give it on standard input")}
		case len(words) == 3:
			v.Value = &words[2]
		default:
			value, err := s.askSecret("Value of " + words[1] + ": ")
			if err != nil {
				return err
			}
			v.Value = &value
		}
		return s.changeVariables(ctx, words[0], func(list []devpilot.VariableInput) ([]devpilot.VariableInput, error) {
			return append(without(list, words[1], branches), v), nil
		})
	})
	c.Flags().BoolVar(&secret, "secret", false, "store it encrypted, mask it in logs, never show it again")
	c.Flags().StringVar(&branches, "branches", "", "only for deployments of branches like this")
	return c
}

func (a *app) unsetVariable() *cobra.Command {
	var branches string
	c := a.new("unset APP NAME", "Remove a variable", 2, 2, func(ctx context.Context, s *session, words []string) error {
		return s.changeVariables(ctx, words[0], func(list []devpilot.VariableInput) ([]devpilot.VariableInput, error) {
			left := without(list, words[1], branches)
			if len(left) == len(list) {
				return nil, fmt.Errorf("%s has no such variable %s: devpilot apps variables list %s", words[0], words[1], words[0])
			}
			return left, nil
		})
	})
	c.Flags().StringVar(&branches, "branches", "", "the one for branches like this")
	return c
}

func without(list []devpilot.VariableInput, name, branches string) []devpilot.VariableInput {
	return slices.DeleteFunc(slices.Clone(list), func(v devpilot.VariableInput) bool {
		return v.Name == name && text(v.Branches) == branches
	})
}

// changeVariables changes the list as it is now: a change of somebody else meanwhile is refused, not lost. Secret
// ones go without a value, which keeps what is stored.
func (s *session) changeVariables(ctx context.Context, name string, change func([]devpilot.VariableInput) ([]devpilot.VariableInput, error)) error {
	one, err := s.api.GetApp(ctx, s.ws, name, nil)
	if err != nil {
		return err
	}
	list := []devpilot.VariableInput{}
	for _, v := range one.Variables {
		list = append(list, devpilot.VariableInput{Name: v.Name, Branches: v.Branches, Secret: ptr(v.Secret), Value: v.Value})
	}
	if list, err = change(list); err != nil {
		return err
	}
	changed, err := s.api.UpdateApp(ctx, s.ws, name, nil, devpilot.AppPatch{Variables: &list, Etag: &one.Etag})
	if err != nil {
		return err
	}
	return s.showVariables(changed)
}
