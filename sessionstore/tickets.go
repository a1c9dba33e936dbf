package sessionstore

import (
	"context"
	"crypto/rand"
	"time"
)

// IssueTicket returns a ticket for a stored session and how long it is
// valid: good for one use, by a client that cannot send the cookie. Redis
// holds its hash only.
func (f *Factory) IssueTicket(ctx context.Context, s *Session) (string, time.Duration, error) {
	if s.IsNew() {
		return "", 0, ErrNotFound
	}
	ticket := rand.Text() + rand.Text()
	if err := f.rdb.Set(ctx, ticketKey(ticket), s.handle, ticketTTL).Err(); err != nil {
		return "", 0, storeError(err)
	}
	return ticket, ticketTTL, nil
}

// RedeemTicket returns the ID of the session that a ticket was issued for, as
// it is now; loading it tells whether it still lives. ErrNotFound: no such
// ticket, or it was used, or is too old. A ticket whose answer got lost is
// used up.
func (f *Factory) RedeemTicket(ctx context.Context, ticket string) (string, error) {
	const longest = 128
	if ticket == "" || len(ticket) > longest {
		return "", ErrNotFound
	}
	handle, err := f.rdb.GetDel(ctx, ticketKey(ticket)).Result()
	if isNil(err) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", storeError(err)
	}
	s, err := f.LoadHandle(ctx, handle)
	if err != nil {
		return "", err
	}
	return s.id, nil
}
