package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/webapp/accounts"
)

func usersCommand(a *app) *cobra.Command {
	return group("users", "Local accounts: add, list, remove", usersAdd(a), usersList(a), usersRemove(a))
}

func usersAdd(a *app) *cobra.Command {
	fromStdin := false
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add an account; asks for its password",
		Args:  cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			return a.withStore(c.Context(), func(ctx context.Context, s store) error {
				password, err := a.newPassword(ctx, fromStdin)
				if err != nil {
					return err
				}
				u, err := s.accounts.Add(ctx, args[0], password)
				if err != nil {
					return fmt.Errorf("%q: %w", args[0], err)
				}
				_, err = fmt.Fprintf(a.stdout, "added %s, ID %s\n", u.Name, u.ID)
				return err
			})
		}),
	}
	c.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from the first line of standard input")
	return c
}

// userJSON is how --json shows an account.
type userJSON struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

func usersList(a *app) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "list",
		Short: "List the accounts",
		Args:  cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			return a.withStore(c.Context(), func(ctx context.Context, s store) error {
				users, err := s.accounts.List(ctx)
				if err != nil {
					return err
				}
				list := make([]userJSON, len(users))
				t := table{{"NAME", "ID", "CREATED"}}
				for i, u := range users {
					list[i] = userJSON{u.ID, u.Name, u.Created}
					t = append(t, []string{u.Name, u.ID, timeCell(u.Created)})
				}
				return a.show(asJSON, list, t)
			})
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func usersRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Aliases: []string{"rm"},
		Short:   "Remove an account and end its sessions",
		Args:    cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			return a.withStore(c.Context(), func(ctx context.Context, s store) error {
				// First the account: or the user could log in again meanwhile.
				u, err := s.accounts.Remove(ctx, args[0])
				if errors.Is(err, accounts.ErrNotFound) {
					return fmt.Errorf("there is no account %q", args[0])
				} else if err != nil {
					return err
				}
				n, err := s.sessions.EndUser(ctx, u.ID, sessionstore.ReasonRevoked, "")
				if err != nil {
					return fmt.Errorf("the account is removed, but its sessions may live on; repeat with `tandem sessions revoke --user %s`: %w", u.ID, err)
				}
				_, err = fmt.Fprintf(a.stdout, "removed %s and ended %d of its sessions\n", u.Name, n)
				return err
			})
		}),
	}
}
