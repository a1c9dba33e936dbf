package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-6230208e/tandem/sessionstore"
)

func sessionsCommand(a *app) *cobra.Command {
	return group("sessions", "Sessions of logged-in users: list, show, revoke", sessionsList(a), sessionsShow(a), sessionsRevoke(a))
}

// sessionJSON is how --json shows a session.
type sessionJSON struct {
	Handle    string                     `json:"handle"`
	User      string                     `json:"user"`
	UserName  string                     `json:"user_name"`
	Created   time.Time                  `json:"created"`
	LastSeen  time.Time                  `json:"last_seen"`
	ExpiresAt time.Time                  `json:"expires_at"`
	UserAgent string                     `json:"user_agent"`
	Address   string                     `json:"address"`
	Values    map[string]json.RawMessage `json:"values,omitempty"` // show only
}

func newSessionJSON(i sessionstore.Info) sessionJSON {
	return sessionJSON{
		Handle: i.Handle, User: i.UserID, UserName: i.UserName, Created: i.Created, LastSeen: i.LastSeen,
		ExpiresAt: i.ExpiresAt, UserAgent: i.UserAgent, Address: i.Address,
	}
}

func sessionsList(a *app) *cobra.Command {
	asJSON, user := false, ""
	c := &cobra.Command{
		Use:   "list [--user NAME]",
		Short: "List the sessions of one user, or of all",
		Args:  cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			return a.withStore(c.Context(), func(ctx context.Context, s store) error {
				infos, err := s.list(ctx, user)
				if err != nil {
					return err
				}
				list := make([]sessionJSON, len(infos))
				t := table{{"HANDLE", "USER", "CREATED", "LAST SEEN", "ADDRESS", "USER AGENT"}}
				for i, info := range infos {
					list[i] = newSessionJSON(info)
					t = append(t, []string{info.Handle, userCell(info), timeCell(info.Created), timeCell(info.LastSeen), info.Address, info.UserAgent})
				}
				return a.show(asJSON, list, t)
			})
		}),
	}
	c.Flags().StringVar(&user, "user", "", "`name` of an account, or ID of a user")
	jsonFlag(c, &asJSON)
	return c
}

// list returns the sessions of user, all users' when it is empty.
func (s store) list(ctx context.Context, user string) ([]sessionstore.Info, error) {
	if user == "" {
		return s.sessions.List(ctx, "")
	}
	id, err := s.userID(ctx, user)
	if err != nil {
		return nil, err
	}
	return s.sessions.List(ctx, id)
}

func sessionsShow(a *app) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "show HANDLE",
		Short: "Show one session and its values",
		Args:  cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			return a.withStore(c.Context(), func(ctx context.Context, s store) error {
				info, err := s.sessions.Info(ctx, args[0])
				if err != nil {
					return sessionError(args[0], err)
				}
				session, err := s.sessions.LoadHandle(ctx, args[0])
				if err != nil {
					return sessionError(args[0], err)
				}
				shown := newSessionJSON(info)
				shown.Values = map[string]json.RawMessage{}
				t := table{
					{"handle", info.Handle}, {"user", userCell(info)}, {"user ID", info.UserID},
					{"created", timeCell(info.Created)}, {"last seen", timeCell(info.LastSeen)},
					{"idle end", timeCell(session.IdleExpiresAt())}, {"absolute end", timeCell(session.ExpiresAt())},
					{"address", info.Address}, {"user agent", info.UserAgent},
				}
				for _, name := range session.Names() {
					if value, ok := session.JSON(name); ok {
						shown.Values[name] = value
						t = append(t, []string{name, string(value)})
					}
				}
				return a.show(asJSON, shown, t)
			})
		}),
	}
	jsonFlag(c, &asJSON)
	return c
}

func sessionsRevoke(a *app) *cobra.Command {
	user := ""
	c := &cobra.Command{
		Use:   "revoke HANDLE | --user NAME",
		Short: "End one session, or all of a user; their sockets close",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == c.Flags().Changed("user") {
				return errors.New("name one session by its handle, or a user by --user")
			}
			return nil
		},
		RunE: action(func(c *cobra.Command, args []string) error {
			return a.withStore(c.Context(), func(ctx context.Context, s store) error {
				if len(args) == 0 {
					return a.revokeUser(ctx, s, user)
				}
				if err := s.sessions.EndHandle(ctx, args[0], sessionstore.ReasonRevoked); err != nil {
					return sessionError(args[0], err)
				}
				_, err := fmt.Fprintf(a.stdout, "ended %s\n", args[0])
				return err
			})
		}),
	}
	c.Flags().StringVar(&user, "user", "", "`name` of an account, or ID of a user")
	return c
}

func (a *app) revokeUser(ctx context.Context, s store, user string) error {
	id, err := s.userID(ctx, user)
	if err != nil {
		return err
	}
	n, err := s.sessions.EndUser(ctx, id, sessionstore.ReasonRevoked, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "ended %d sessions of %s\n", n, user)
	return err
}

// sessionError says what a store's answer means for the handle that was asked for.
func sessionError(handle string, err error) error {
	var ended *sessionstore.EndedError
	switch {
	case errors.As(err, &ended):
		return fmt.Errorf("the session %q has ended: %s", handle, ended.Reason)
	case errors.Is(err, sessionstore.ErrNotFound):
		return fmt.Errorf("there is no session with the handle %q; `tandem sessions list` shows them", handle)
	default:
		return err
	}
}
