package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-6230208e/tandem/gateway"
)

func checkCommand(a *app) *cobra.Command {
	printTable, asJSON := false, false
	c := &cobra.Command{
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
				cfg, err := a.load()
				if err != nil {
					return err
				}
				if printTable {
					return a.showRoutes(gateway.Describe(gatewayListeners(cfg)), asJSON)
				}
				_, err = fmt.Fprintf(a.stdout, "%s: ok\n", file)
				return err
			})(c, args)
		},
	}
	c.Flags().BoolVar(&printTable, "print", false, "print the effective table of routes, in the order in which they are tried")
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) showRoutes(routes []gateway.RouteInfo, asJSON bool) error {
	rows := table{{"LISTENER", "HOST", "PATH", "METHODS", "KIND", "TO", "LOGIN"}}
	for _, r := range routes {
		listener := r.Listener
		if r.TLS {
			listener += " (tls)"
		}
		rows = append(rows, []string{listener, r.Host, r.Path, strings.Join(r.Methods, " "), r.Kind, strings.Join(r.To, " "), r.Login})
	}
	return a.show(asJSON, routes, rows)
}
