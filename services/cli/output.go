package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

// show prints what came: v as JSON or YAML, or a table with a heading.
func (a *app) show(v any, heading string, rows [][]string) error {
	if a.output != outputTable {
		raw, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		if a.output == outputYAML {
			if raw, err = yaml.JSONToYAML(raw); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintln(a.p.Stdout, strings.TrimRight(string(raw), "\n"))
		return err
	}
	w := tabwriter.NewWriter(a.p.Stdout, 0, 0, 2, ' ', 0)
	if heading != "" {
		fmt.Fprintln(w, strings.Join(strings.Fields(heading), "\t"))
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = clean(cell)
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return w.Flush()
}

// say tells people what was done, where no program reads the answer.
func (a *app) say(format string, words ...any) {
	if a.output == outputTable {
		fmt.Fprintf(a.p.Stdout, format+"\n", words...)
	}
}

// note tells people something beside the answer.
func (a *app) note(format string, words ...any) { fmt.Fprintf(a.p.Stderr, format+"\n", words...) }

// clean is text of others without what commands a terminal: it may hold anything that somebody pushed.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case unicode.IsControl(r):
			return '�'
		}
		return r
	}, s)
}

// text is an optional word.
func text[T ~string](s *T) string {
	if s == nil {
		return ""
	}
	return string(*s)
}

func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func short(c *devpilot.DeploymentCommit) string {
	if c == nil {
		return "-"
	}
	return fmt.Sprintf("%.7s", c.Hash)
}

func ptr[T any](v T) *T { return &v }

// some is nil for the empty value.
func some[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}

// watchable has a command show the thing again whenever one of the kinds of things changes.
func (a *app) watchable(use, what string, least, most int, kinds string, run func(ctx context.Context, s *session, words []string) error) *cobra.Command {
	watch := false
	c := a.new(use, what, least, most, func(ctx context.Context, s *session, words []string) error {
		if !watch {
			return run(ctx, s, words)
		}
		for e, err := range s.api.FollowEvents(ctx, s.ws, "") {
			switch {
			case err != nil:
				return err
			case e.Kind == "end":
				return errNoLogin
			case e.Kind == "change" && !strings.Contains(kinds, e.Change.Kind):
				continue
			}
			if s.p.Terminal && s.output == outputTable {
				fmt.Fprint(s.p.Stdout, "\x1b[H\x1b[2J") // home, and clear
			}
			if err := run(ctx, s, words); err != nil {
				return err
			}
		}
		return nil
	})
	c.Flags().BoolVar(&watch, "watch", false, "show it again whenever it changes, until interrupted")
	return c
}

// confirm asks before something is lost; programs say --yes.
func (a *app) confirm(yes bool, what string) error {
	if yes {
		return nil
	}
	if a.p.Secret == nil {
		return usage{fmt.Errorf("%s needs --yes where nobody can be asked", what)}
	}
	fmt.Fprintf(a.p.Stderr, "%s? Type yes: ", what)
	var word string
	if _, err := fmt.Fscanln(a.p.Stdin, &word); err != nil || word != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
