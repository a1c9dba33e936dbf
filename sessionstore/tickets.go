package sessionstore

import (
	"context"
	"crypto/rand"
	"time"
)

// IssueTicket returns a ticket for a stored session and how long it is
// valid: good for one use, by a client that cannot send the cookie. Redis
// holds its hash, and the ID in a form that the ticket alone opens.
func (f *Factory) IssueTicket(ctx context.Context, s *Session) (string, time.Duration, error) {
	if s.IsNew() {
		return "", 0, ErrNotFound
	}
	if s.id == "" {
		return "", 0, errNoID
	}
	ticket := rand.Text() + rand.Text()
	if err := f.rdb.Set(ctx, ticketKey(ticket), veil(ticket, "ticket", s.id), ticketTTL).Err(); err != nil {
		return "", 0, storeError(err)
	}
	return ticket, ticketTTL, nil
}

// RedeemTicket returns the ID of the session that a ticket was issued for, as
// it is now. A ticket is worth what the ID was when it was issued: after a
// login nothing. ErrNotFound: no such ticket, or it was used, or is too old;
// else errors are those of Load. After ErrUnavailable the ticket may be used up.
func (f *Factory) RedeemTicket(ctx context.Context, ticket string) (string, error) {
	const longest = 128
	if ticket == "" || len(ticket) > longest {
		return "", ErrNotFound
	}
	key := ticketKey(ticket)
	veiled, err := redeemScript.Run(ctx, f.rdb, []string{key, key + ":" + rand.Text()}).Text()
	if isNil(err) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", storeError(err)
	}
	id, err := unveil(ticket, "ticket", veiled)
	if err != nil {
		return "", ErrNotFound
	}
	s, err := f.load(ctx, id, presented)
	if err != nil {
		return "", err
	}
	return s.id, nil
}
