package sessionstore

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Info is what is shown of a session where sessions are listed.
type Info struct {
	Handle             string
	UserID, UserName   string
	Created            time.Time // see Session.Created
	LastSeen           time.Time // to Config.TouchEvery
	ExpiresAt          time.Time // end of the absolute lifetime
	UserAgent, Address string    // of the client seen last, empty when unknown
}

// Info returns what is known of the session with this handle. ErrNotFound:
// there is none, or none any more.
func (f *Factory) Info(ctx context.Context, handle string) (Info, error) {
	if !ValidHandle(handle) {
		return Info{}, ErrNotFound
	}
	infos, _, err := f.describe(ctx, []string{handle})
	switch {
	case err != nil:
		return Info{}, err
	case len(infos) == 0:
		return Info{}, ErrNotFound
	}
	return infos[0], nil
}

// List returns the sessions of a user, or with an empty ID those of all
// users, the latest seen first. Anonymous sessions are in no list. Sessions
// that it finds ended are dropped from the index.
func (f *Factory) List(ctx context.Context, userID string) ([]Info, error) {
	if userID == "" {
		return f.listAll(ctx)
	}
	handles, err := f.handlesOf(ctx, userID)
	if err != nil {
		return nil, err
	}
	infos, dead, err := f.describe(ctx, handles)
	if err != nil {
		return nil, err
	}
	f.loseAll(ctx, dead, userID)
	infos = slices.DeleteFunc(infos, func(i Info) bool { return i.UserID != userID })
	slices.SortFunc(infos, func(a, b Info) int {
		return cmp.Or(b.LastSeen.Compare(a.LastSeen), cmp.Compare(a.Handle, b.Handle))
	})
	return infos, nil
}

// Find lists the sessions of the user with this ID, or if there are none of
// the users with this name.
func (f *Factory) Find(ctx context.Context, user string) ([]Info, error) {
	if user == "" {
		return nil, nil
	}
	infos, err := f.List(ctx, user)
	if err != nil || len(infos) > 0 {
		return infos, err
	}
	infos, err = f.listAll(ctx)
	return slices.DeleteFunc(infos, func(i Info) bool { return i.UserName != user }), err
}

func (f *Factory) listAll(ctx context.Context) ([]Info, error) {
	users, err := f.users(ctx)
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, user := range users {
		infos, err := f.List(ctx, user)
		if err != nil {
			return nil, err
		}
		all = append(all, infos...)
	}
	return all, nil
}

// users scans for the users who have an index, on every master.
func (f *Factory) users(ctx context.Context) ([]string, error) {
	var mu sync.Mutex // a cluster's masters are scanned at the same time
	found := map[string]bool{}
	scan := func(ctx context.Context, node *redis.Client) error {
		return scanUsers(ctx, node, &mu, found)
	}
	var err error
	if cluster, ok := f.rdb.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, scan)
	} else {
		err = scanUsers(ctx, f.rdb, &mu, found)
	}
	users := make([]string, 0, len(found))
	for user := range found {
		users = append(users, user)
	}
	slices.Sort(users)
	return users, storeError(err)
}

func scanUsers(ctx context.Context, node redis.Cmdable, mu *sync.Mutex, found map[string]bool) error {
	keys := node.Scan(ctx, 0, userKeyPrefix+"*", 500).Iterator()
	for keys.Next(ctx) {
		if user, ok := userOfKey(keys.Val()); ok {
			mu.Lock()
			found[user] = true
			mu.Unlock()
		}
	}
	return keys.Err()
}

// handlesOf returns the handles in a user's index.
func (f *Factory) handlesOf(ctx context.Context, userID string) ([]string, error) {
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	handles, err := f.rdb.ZRangeByScore(ctx, userKey(userID), &redis.ZRangeBy{Min: now, Max: "+inf"}).Result()
	return handles, storeError(err)
}

// refOf returns the ref that a handle's record names: the session's, or one
// it had before.
func (f *Factory) refOf(ctx context.Context, handle string) (ref, error) {
	if !ValidHandle(handle) {
		return "", ErrNotFound
	}
	r, err := f.rdb.HGet(ctx, handleKey(handle), "id").Result()
	if isNil(err) || err == nil && !isRef(r) {
		return "", ErrNotFound
	}
	return ref(r), storeError(err)
}

// describe reads the records of many handles, and finds which have a living
// session; both in the order of handles.
func (f *Factory) describe(ctx context.Context, handles []string) (alive, dead []Info, err error) {
	records := make([]*redis.MapStringStringCmd, len(handles))
	if len(handles) == 0 {
		return nil, nil, nil
	}
	_, err = f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, handle := range handles {
			records[i] = p.HGetAll(ctx, handleKey(handle))
		}
		return nil
	})
	if err != nil {
		return nil, nil, storeError(err)
	}
	refs := make([]ref, len(handles))
	for i := range handles {
		refs[i] = ref(records[i].Val()["id"])
	}
	living, err := f.living(ctx, refs)
	if err != nil {
		return nil, nil, err
	}
	for i, handle := range handles {
		info := f.infoOf(handle, records[i].Val())
		if living[i] {
			alive = append(alive, info)
		} else {
			dead = append(dead, info)
		}
	}
	return alive, dead, nil
}

// living reports which refs lead to a living session, by whatever ref it has
// now.
func (f *Factory) living(ctx context.Context, refs []ref) ([]bool, error) {
	living := make([]bool, len(refs))
	at := make([]int, 0, len(refs)) // places in refs and living of what is not decided yet
	for i, r := range refs {
		if isRef(string(r)) {
			at = append(at, i)
		}
	}
	refs = slices.Clone(refs)
	for range maxHops {
		if len(at) == 0 {
			break
		}
		values, stones := make([]*redis.IntCmd, len(at)), make([]*redis.StringCmd, len(at))
		_, err := f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for n, i := range at {
				values[n] = p.Exists(ctx, f.valueKey(refs[i]))
				stones[n] = p.Get(ctx, f.endKey(refs[i]))
			}
			return nil
		})
		if err != nil && !isNil(err) {
			return nil, storeError(err)
		}
		var rotated []int
		for n, i := range at {
			stone := tombstone(stones[n].Val())
			if heir, ok := stone.heir(); ok {
				refs[i] = heir
				rotated = append(rotated, i)
				continue
			}
			living[i] = stone == "" && values[n].Val() == 1
		}
		at = rotated
	}
	return living, nil
}

func (f *Factory) infoOf(handle string, fields map[string]string) Info {
	if len(fields) == 0 {
		return Info{Handle: handle}
	}
	at := func(name string) time.Time {
		ms, _ := strconv.ParseInt(fields[name], 10, 64) // written by record.lua only
		return time.UnixMilli(ms)
	}
	return Info{
		Handle: handle, UserID: fields["user"], UserName: fields["user_name"],
		Created: at("created"), LastSeen: at("seen"), ExpiresAt: at("created").Add(f.cfg.AbsoluteTimeout),
		UserAgent: fields["ua"], Address: fields["addr"],
	}
}
