package storetest

import "context"

// CheckOne is Check of one promise.
func CheckOne(ctx context.Context, h Harness, id string) Result {
	s := newSite(h)
	defer s.close()
	for _, c := range catalogue {
		if c.ID == id {
			return s.check(ctx, c)
		}
	}
	panic("no promise " + id)
}
