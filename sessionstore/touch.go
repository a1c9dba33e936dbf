package sessionstore

import (
	"context"
	"errors"
	"time"
)

// remaining is how long a session may live without activity from now on.
func (f *Factory) remaining(s *stored, now time.Time) time.Duration {
	absolute := s.created.Add(f.cfg.AbsoluteTimeout).Sub(now)
	return max(min(f.cfg.IdleTimeout, absolute), time.Millisecond)
}

// touchDue is touch.lua's own condition, asked before to save the trip.
func (f *Factory) touchDue(s *stored, left time.Duration, now time.Time) bool {
	want := f.remaining(s, now)
	return left < 0 || left > want+f.cfg.TouchEvery || want-left >= f.cfg.TouchEvery
}

// touch renews a session's idle timeout and its place in the index.
func (f *Factory) touch(ctx context.Context, s *Session) error {
	lives, err := f.touchStored(ctx, []*stored{&s.stored}, f.cfg.TouchEvery)
	if err != nil || lives[0].left < 0 {
		return err
	}
	s.idleEnd = time.Now().Add(lives[0].left)
	if lives[0].renewed || !f.indexed.has(s.handle, s.UserID()) {
		f.index(ctx, s)
	}
	return nil
}

// Touch counts as activity of many sessions at once: it renews their idle
// timeouts where that is due. Sessions that have ended, or have another ID by
// now, are left alone. The snapshots stay as they are. On an error those
// were touched that are on masters which did answer.
func (f *Factory) Touch(ctx context.Context, snaps ...*Snapshot) error {
	_, err := f.touchAll(ctx, snaps)
	return err
}

// touchAll is Touch; in the order of snaps it tells what is known of each.
func (f *Factory) touchAll(ctx context.Context, snaps []*Snapshot) ([]life, error) {
	sessions := make([]*stored, len(snaps))
	for i, snap := range snaps {
		sessions[i] = &stored{place: place{ref: snap.ref}, handle: snap.handle, created: snap.created}
	}
	lives, err := f.touchStored(ctx, sessions, f.cfg.TouchEvery)
	var records []record
	now := time.Now()
	for i, snap := range snaps {
		if lives[i].renewed {
			records = append(records, snap.record(now))
		}
	}
	return lives, errors.Join(err, f.writeIndex(ctx, records))
}

// life is what touch.lua says of a session: what is left of it, negative when
// there is none, and whether that was renewed.
type life struct {
	known   bool // Redis answered
	left    time.Duration
	renewed bool
}

// touchStored touches many sessions in one round trip. Its error is of the
// first that Redis did not answer for.
func (f *Factory) touchStored(ctx context.Context, sessions []*stored, every time.Duration) ([]life, error) {
	now := time.Now()
	calls := make([]call, len(sessions))
	for i, s := range sessions {
		calls[i] = call{
			keys: []string{f.valueKey(s.ref), f.endKey(s.ref), f.sidKey(s.ref)},
			args: []any{ms(f.remaining(s, now)), ms(every), mark(s.handle, s.created)},
		}
	}
	cmds, err := f.runAll(ctx, touchScript, calls)
	lives := make([]life, len(sessions))
	for i, cmd := range cmds {
		answer, ok := answered(cmd)
		if !ok {
			continue
		}
		numbers, wrong := answer.Int64Slice()
		if wrong != nil || len(numbers) != 2 {
			return lives, errors.Join(errors.New("sessionstore: touch.lua answered something else"), wrong)
		}
		lives[i] = life{known: true, left: time.Duration(numbers[0]) * time.Millisecond, renewed: numbers[1] == 1}
		if lives[i].renewed {
			f.metrics.touches.Inc()
		}
	}
	return lives, err
}
