package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) reference() *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Print the reference of all commands, in Markdown", Hidden: true, Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(a.p.Stdout, Reference(c.Root()))
			return err
		},
	}
}

// Reference describes a command and those below it, as the program itself does.
func Reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# The command line\n\nMade of the program by `make generate`.\n\n```\n" + strings.TrimSpace(root.Long) + "\n```\n\nEverywhere:\n\n```\n" + root.PersistentFlags().FlagUsages() + "```\n")
	describe(&b, root)
	return b.String()
}

func describe(b *strings.Builder, c *cobra.Command) {
	for _, one := range c.Commands() {
		if !one.IsAvailableCommand() || one.Name() == "help" || one.Name() == "completion" {
			continue
		}
		if one.HasAvailableSubCommands() {
			describe(b, one)
			continue
		}
		fmt.Fprintf(b, "\n## %s\n\n%s.\n", one.CommandPath(), strings.TrimSuffix(one.Short, "."))
		if one.Long != "" {
			fmt.Fprintf(b, "\n```\n%s\n```\n", strings.TrimSpace(one.Long))
		}
		fmt.Fprintf(b, "\n```\n%s\n%s```\n", one.UseLine(), one.NonInheritedFlags().FlagUsages())
	}
}
