package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func checkCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check --config FILE",
		Short: "Validate a configuration file",
		Long: `Validate a configuration file, with what the environment and flags change in it.

Every fault is reported as file:line:column: what is wrong, what is allowed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			file := cmp.Or(a.configFile, a.getenv("TANDEM_CONFIG"))
			if file == "" {
				return errors.New("name the file: --config FILE")
			}
			return action(func(*cobra.Command, []string) error {
				if _, err := a.load(); err != nil {
					return err
				}
				_, err := fmt.Fprintf(a.stdout, "%s: ok\n", file)
				return err
			})(c, args)
		},
	}
}
