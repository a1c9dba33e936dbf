package sessionstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Meta is what is known of the client that uses a session. What it sends
// last is shown where a user's sessions are listed.
type Meta struct{ UserAgent, Address string }

type metaKey struct{}

// WithMeta makes every session that is created, rotated or touched with the
// returned context remember m.
func WithMeta(ctx context.Context, m Meta) context.Context {
	const longest = 256
	m.UserAgent = strings.ToValidUTF8(m.UserAgent[:min(len(m.UserAgent), longest)], "")
	m.Address = strings.ToValidUTF8(m.Address[:min(len(m.Address), longest)], "")
	return context.WithValue(ctx, metaKey{}, m)
}

// record is what is kept under a handle.
type record struct {
	ref                      ref
	handle, userID, userName string
	created, seen            time.Time
	meta                     Meta // empty fields: unchanged
}

// index writes a session's record and its place in its user's index. The
// index is what lists and revokes; the session lives without it, and the
// next touch writes it again.
func (f *Factory) index(ctx context.Context, s *Session) {
	if err := f.writeIndex(ctx, []record{recordOf(ctx, s)}); err != nil {
		f.log.WarnContext(ctx, "session not indexed", "session", s.handle, "err", err)
	}
}

// indexAfter is index of a session that has just got its ID. After a login
// it keeps the user to Config.MaxPerUser.
func (f *Factory) indexAfter(ctx context.Context, s *Session, login *Login) {
	if login == nil || f.cfg.MaxPerUser <= 0 {
		f.index(ctx, s)
		return
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	others, err := f.enter(ctx, recordOf(ctx, s))
	if err == nil {
		err = f.endExcess(ctx, s, others)
	}
	if err != nil {
		f.log.WarnContext(ctx, "sessions of the user not limited", "session", s.handle, "user", s.UserID(), "err", err)
	}
}

func recordOf(ctx context.Context, s *Session) record {
	meta, _ := ctx.Value(metaKey{}).(Meta)
	return record{
		ref: s.ref, handle: s.handle, userID: s.UserID(), userName: s.UserName(),
		created: s.created, seen: time.Now(), meta: meta,
	}
}

// reindex writes the index when the session has another user than before.
func (s *Session) reindex(ctx context.Context) {
	if !s.f.indexed.has(s.handle, s.UserID()) {
		s.f.index(ctx, s)
	}
}

// writeIndex indexes many sessions. Its error is of the first that failed;
// the others are indexed.
func (f *Factory) writeIndex(ctx context.Context, records []record) error {
	if len(records) == 0 {
		return nil
	}
	before, failed := f.writeRecords(ctx, records)
	pipe := f.rdb.Pipeline()
	entered := make([]*redis.IntCmd, len(records)) // nil: nothing to enter
	for i, r := range records {
		was, ok := before[r.handle]
		if !ok {
			continue
		}
		if was != "" && was != r.userID {
			pipe.ZRem(ctx, userKey(was), r.handle)
		}
		if r.userID != "" {
			entered[i] = f.addToUser(ctx, pipe, r)
		}
	}
	if pipe.Len() > 0 {
		if _, err := pipe.Exec(ctx); failed == nil {
			failed = storeError(err)
		}
	}
	for i, r := range records {
		_, written := before[r.handle]
		if written && (entered[i] == nil || entered[i].Err() == nil) {
			f.indexed.add(r.handle, r.userID)
		}
	}
	return failed
}

// writeRecords writes what is kept under the handles. It returns which users
// were there before, empty for none, by handle: of those that Redis answered
// for. Its error is of the first that it did not.
func (f *Factory) writeRecords(ctx context.Context, records []record) (before map[string]string, err error) {
	calls := make([]call, len(records))
	for i, r := range records {
		calls[i] = call{
			keys: []string{handleKey(r.handle)},
			args: []any{
				ms(f.cfg.AbsoluteTimeout), string(r.ref), r.userID, r.userName,
				r.created.UnixMilli(), r.seen.UnixMilli(), r.meta.UserAgent, r.meta.Address,
			},
		}
	}
	cmds, err := f.runAll(ctx, recordScript, calls)
	before = make(map[string]string, len(records))
	for i, cmd := range cmds {
		if answer, ok := answered(cmd); ok {
			before[records[i].handle], _ = answer.Text()
		}
	}
	return before, err
}

// enter is writeIndex for a login. It returns the handles that the user has
// next to this one, those that expire first first. Of several logins at a
// time each sees the ones that came before it, and the last one sees all.
func (f *Factory) enter(ctx context.Context, r record) ([]string, error) {
	if _, err := f.writeRecords(ctx, []record{r}); err != nil { // nobody finds an entry without its record
		return nil, err
	}
	var handles *redis.StringSliceCmd
	_, err := f.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		f.addToUser(ctx, p, r)
		handles = p.ZRange(ctx, userKey(r.userID), 0, -1)
		return nil
	})
	if err != nil {
		return nil, storeError(err)
	}
	f.indexed.add(r.handle, r.userID)
	return slices.DeleteFunc(handles.Val(), func(handle string) bool { return handle == r.handle }), nil
}

// endExcess ends the oldest of the user's other sessions until there are no
// more than Config.MaxPerUser with the newest.
func (f *Factory) endExcess(ctx context.Context, newest *Session, others []string) error {
	alive, dead, err := f.describe(ctx, others)
	if err != nil {
		return err
	}
	f.loseAll(ctx, dead, newest.UserID())
	excess := len(alive) + 1 - f.cfg.MaxPerUser
	var errs []error
	for _, i := range alive[:max(excess, 0)] {
		err := f.EndHandle(ctx, i.Handle, ReasonRevoked)
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrEnded) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// addToUser enters a session under its user, and drops the entries whose
// absolute lifetime is over.
func (f *Factory) addToUser(ctx context.Context, pipe redis.Pipeliner, r record) (added *redis.IntCmd) {
	key := userKey(r.userID)
	expires := r.created.Add(f.cfg.AbsoluteTimeout).UnixMilli()
	added = pipe.ZAdd(ctx, key, redis.Z{Score: float64(expires), Member: r.handle})
	pipe.ZRemRangeByScore(ctx, key, "-inf", "("+strconv.FormatInt(r.seen.UnixMilli(), 10))
	pipe.PExpire(ctx, key, f.cfg.AbsoluteTimeout)
	return added
}

// indexed remembers which sessions this replica has indexed, and under which
// user, so that a user who was logged in by another application is found
// without reading the index at every load. It is a memory aid, not the truth:
// a session that it has lost is written to the index once more.
type indexed struct {
	mu     sync.Mutex
	userOf map[string]string // guarded by mu: handle to user; at most indexedMax, any is dropped for a new one
}

const indexedMax = 10_000

func (x *indexed) has(handle, userID string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	user, ok := x.userOf[handle]
	return ok && user == userID
}

func (x *indexed) add(handle, userID string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.userOf == nil {
		x.userOf = make(map[string]string)
	}
	if len(x.userOf) >= indexedMax {
		for other := range x.userOf {
			delete(x.userOf, other)
			break
		}
	}
	x.userOf[handle] = userID
}

func (x *indexed) forget(handle string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.userOf, handle)
}
