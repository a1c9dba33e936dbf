package sessionstore

import (
	"context"
	"errors"
	"slices"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// relist writes the records and places in the users' indexes that are missing
// of these sessions, and returns of how many some were. What it writes it reads
// anew: a login may have come since the snapshot. A session that has ended is
// not brought back into a list: whoever ends it sets the tombstone first and
// clears the index after that, and here the index is written first and the
// tombstone read after that; so one of the two sees the other.
func (f *Factory) relist(ctx context.Context, snaps []*Snapshot) (int, error) {
	lost, err := f.unlisted(ctx, snaps)
	newest := make([]*Snapshot, len(lost))
	var reading errgroup.Group
	reading.SetLimit(loadsAtOnce)
	for i, snap := range lost {
		reading.Go(func() error {
			s, err := f.follow(ctx, snap.ref)
			if err == nil {
				newest[i] = s.Snapshot()
			}
			return nil // it has ended, or the next look finds it
		})
	}
	_ = reading.Wait()
	newest = slices.DeleteFunc(newest, func(s *Snapshot) bool { return s == nil })
	if len(newest) == 0 {
		return 0, err
	}

	records := make([]record, len(newest))
	refs := make([]ref, len(newest))
	for i, s := range newest {
		seen := s.idleEnd.Add(-f.cfg.IdleTimeout) // of its latest activity, or earlier
		if seen.Before(s.created) {
			seen = s.created
		}
		records[i], refs[i] = s.record(seen), s.ref
	}
	err = errors.Join(err, f.writeIndex(ctx, records))
	living, unknown := f.living(ctx, refs)
	for i, s := range newest {
		if unknown == nil && !living[i] {
			f.forget(ctx, s.handle, s.userID)
			continue
		}
		f.log.InfoContext(ctx, "session listed again", "session", s.handle, "user", s.userID)
	}
	return len(newest), errors.Join(err, unknown)
}

// unlisted returns which of these sessions have no record, or no place in
// their user's index. When all are listed that takes two commands.
func (f *Factory) unlisted(ctx context.Context, snaps []*Snapshot) ([]*Snapshot, error) {
	var indexes, handles []string
	for _, snap := range snaps {
		handles = append(handles, handleKey(snap.handle))
		if snap.userID != "" {
			indexes = append(indexes, userKey(snap.userID))
		}
	}
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)
	if _, cluster := f.rdb.(*redis.ClusterClient); cluster { // one command reads one slot
		return f.unlistedOneByOne(ctx, snaps)
	}

	var records *redis.IntCmd
	members := redis.NewStringSliceCmd(ctx)
	_, err := f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		records = p.Exists(ctx, handles...)
		if len(indexes) > 0 {
			members = p.ZUnion(ctx, redis.ZStore{Keys: indexes})
		}
		return nil
	})
	if err != nil {
		return nil, storeError(err)
	}
	listed := make(map[string]bool, len(members.Val()))
	for _, handle := range members.Val() {
		listed[handle] = true
	}
	missing := func(snap *Snapshot) bool { return snap.userID != "" && !listed[snap.handle] }
	if records.Val() == int64(len(snaps)) && !slices.ContainsFunc(snaps, missing) {
		return nil, nil
	}
	return f.unlistedOneByOne(ctx, snaps)
}

// unlistedOneByOne is unlisted, with two commands a session. Its error is of
// the first that Redis did not answer for.
func (f *Factory) unlistedOneByOne(ctx context.Context, snaps []*Snapshot) ([]*Snapshot, error) {
	records, places := make([]*redis.IntCmd, len(snaps)), make([]*redis.FloatCmd, len(snaps))
	_, err := f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, snap := range snaps {
			records[i] = p.Exists(ctx, handleKey(snap.handle))
			if snap.userID != "" {
				places[i] = p.ZScore(ctx, userKey(snap.userID), snap.handle)
			}
		}
		return nil
	})
	var lost []*Snapshot
	var failed error
	for i, snap := range snaps {
		switch {
		case records[i].Err() != nil:
			failed = records[i].Err()
		case places[i] != nil && places[i].Err() != nil && !isNil(places[i].Err()):
			failed = places[i].Err()
		case records[i].Val() == 0 || places[i] != nil && places[i].Err() != nil:
			lost = append(lost, snap)
		}
	}
	if isNil(err) {
		err = nil
	}
	return lost, storeError(errors.Join(failed, err))
}
