package sessionstore

import (
	"context"
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
	meta, _ := ctx.Value(metaKey{}).(Meta)
	err := f.writeIndex(ctx, []record{{
		ref: s.ref, handle: s.handle, userID: s.UserID(), userName: s.UserName(),
		created: s.created, seen: time.Now(), meta: meta,
	}})
	if err != nil {
		f.log.WarnContext(ctx, "session not indexed", "session", s.handle, "err", err)
	}
}

// reindex writes the index when the session has another user than before.
func (s *Session) reindex(ctx context.Context) {
	if !s.f.indexed.has(s.handle, s.UserID()) {
		s.f.index(ctx, s)
	}
}

func (f *Factory) writeIndex(ctx context.Context, records []record) error {
	if len(records) == 0 {
		return nil
	}
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
	before, err := f.runAll(ctx, recordScript, calls)
	if err != nil {
		return err
	}
	pipe := f.rdb.Pipeline()
	for i, r := range records {
		if was, _ := before[i].Text(); was != "" && was != r.userID {
			pipe.ZRem(ctx, userKey(was), r.handle)
		}
		if r.userID != "" {
			f.addToUser(ctx, pipe, r)
		}
	}
	if pipe.Len() > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return storeError(err)
		}
	}
	for _, r := range records {
		f.indexed.add(r.handle, r.userID)
	}
	return nil
}

// addToUser enters a session under its user, and drops the entries whose
// absolute lifetime is over.
func (f *Factory) addToUser(ctx context.Context, pipe redis.Pipeliner, r record) {
	key := userKey(r.userID)
	expires := r.created.Add(f.cfg.AbsoluteTimeout).UnixMilli()
	pipe.ZAdd(ctx, key, redis.Z{Score: float64(expires), Member: r.handle})
	pipe.ZRemRangeByScore(ctx, key, "-inf", "("+strconv.FormatInt(r.seen.UnixMilli(), 10))
	pipe.PExpire(ctx, key, f.cfg.AbsoluteTimeout)
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
