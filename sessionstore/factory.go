package sessionstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// Factory gives the sessions in one Redis. All methods are safe for
// concurrent use. They return ErrUnavailable when Redis does not answer, and
// the error of ctx when the caller gave up.
type Factory struct {
	// Fixed after construction.
	rdb     redis.UniversalClient
	cfg     Config // zeros replaced
	codec   codec
	log     *slog.Logger
	metrics *factoryMetrics

	loads   *redisconn.Convoy
	lanes   lanes
	indexed indexed
	unknown ration // of log lines about unknown IDs
}

// New returns a factory; it does not need Redis to be there. The client
// stays the caller's.
func New(rdb redis.UniversalClient, cfg Config) (*Factory, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newFactoryMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("sessionstore: metrics: %w", err)
	}
	return &Factory{
		rdb: rdb, cfg: cfg, codec: newCodec(cfg.Serializer), log: cfg.Logger, metrics: m,
		loads: redisconn.NewConvoy(rdb, loadTrips),
	}, nil
}

// New returns a session that is not stored. Save stores it, under a new
// random ID.
func (f *Factory) New() *Session { return &Session{f: f} }

// Load returns the session that a client presents by ID, and counts as its
// activity. An ID that was replaced lately leads to the session by its new
// one (see [Session.Renewed]). A session of an application that knows nothing
// of Tandem is given a handle.
//
// It returns ErrNotFound for an ID that nobody was given, without asking
// Redis when it has not even the form of one; an *EndedError; ErrUndecodable.
func (f *Factory) Load(ctx context.Context, id string) (*Session, error) {
	s, err := f.load(ctx, id, presented)
	f.metrics.loaded(err)
	if errors.Is(err, ErrNotFound) {
		f.reportUnknown(ctx, id)
	}
	return s, err
}

// Peek returns the session that has this ID now, and leaves no trace: it is
// no activity, an ID that was replaced is not followed, and nobody is reported
// for one that is unknown. ErrNotFound for all that is not a living session
// with a handle; it does not say why.
func (f *Factory) Peek(ctx context.Context, id string) (*Snapshot, error) {
	if !ValidID(id) {
		return nil, ErrNotFound
	}
	at := f.placeOf(id)
	found, left, err := f.read(ctx, at.ref)
	if err != nil {
		return nil, err
	}
	if !found.found || found.stone != "" {
		return nil, ErrNotFound
	}
	s := &Session{f: f, by: presented}
	s.stored = stored{place: at, idleEnd: time.Now().Add(max(left, 0))}
	if err := s.rebase(found.value); err != nil {
		return nil, err
	}
	if !s.identified() || !time.Now().Before(s.ExpiresAt()) {
		return nil, ErrNotFound
	}
	return s.Snapshot(), nil
}

// LoadHandle returns the session that has this handle now. It does not count
// as activity, and its saves follow the session wherever a rotation takes it.
// Errors are those of Load.
func (f *Factory) LoadHandle(ctx context.Context, handle string) (*Session, error) {
	r, err := f.refOf(ctx, handle)
	if err != nil {
		return nil, err
	}
	return f.follow(ctx, r)
}

// follow loads a session for code that was bound to it before: wherever it
// is now, and without counting as activity.
func (f *Factory) follow(ctx context.Context, r ref) (*Session, error) {
	return f.loadAt(ctx, f.placeAt(r), bound)
}

// claim is by what right a session is loaded.
type claim int

const (
	// presented: a client sent the ID. A rotation is followed within its
	// grace, and never past a login.
	presented claim = iota
	// bound: the server knows that it means this session, whatever its ID.
	bound
)

// maxHops ends following rotations; IDs are random, so that only a Redis
// that was tampered with leads in a circle.
const maxHops = 100

func (f *Factory) load(ctx context.Context, id string, by claim) (*Session, error) {
	if !ValidID(id) {
		return nil, ErrNotFound
	}
	return f.loadAt(ctx, f.placeOf(id), by)
}

func (f *Factory) loadAt(ctx context.Context, at place, by claim) (*Session, error) {
	s := &Session{f: f, by: by}
	for range maxHops {
		found, left, err := f.read(ctx, at.ref)
		switch {
		case err != nil:
			return nil, err
		case found.stone != "":
			if found.found {
				f.bury(ctx, at.ref, found.stone)
			}
			if at, err = f.heirOf(ctx, at, found.stone, by); err != nil {
				return nil, err
			}
			s.renewed = true
			continue
		case !found.found:
			return nil, ErrNotFound
		case left == noKey: // it went between the two answers
			continue
		}
		now := time.Now()
		s.stored = stored{place: at, idleEnd: now.Add(max(left, 0))}
		if err := s.rebase(found.value); err != nil {
			return nil, err
		}
		if !s.identified() {
			if err := s.adopt(ctx); errors.Is(err, errReread) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		if err := f.admit(ctx, s, left, now); err != nil {
			return nil, err
		}
		return s, nil
	}
	return nil, ErrNotFound
}

// noKey is PTTL's answer for a key that is not there.
const noKey = time.Duration(-2)

// errReread: the session changed its ID or ended between two steps.
var errReread = errors.New("sessionstore: read again")

// loadTrips is how many round trips with loads are under way at a time.
const loadTrips = 4

// glimpse is what Redis holds at one ref.
type glimpse struct {
	value string
	found bool // there is a value
	stone tombstone
	seen  bool // Redis answered
}

// read gets what is at r and the value's TTL, negative when there is none, in
// one round trip.
//
// It is what every request pays. So it makes MGET and PTTL by hand, which
// share their arguments, and those who load at the same time share a trip.
func (f *Factory) read(ctx context.Context, r ref) (glimpse, time.Duration, error) {
	valueKey, endKey := f.readKeys(r)
	args := [...]any{"mget", valueKey, endKey, "pttl", nil}
	args[4] = args[1]
	both := redis.NewSliceCmd(ctx, args[:3:3]...)
	ttl := redis.NewDurationCmd(ctx, time.Millisecond, args[3:]...)

	err := f.loads.Do(ctx, both, ttl)
	if err == nil { // else they may be under way still
		err = cmp.Or(both.Err(), ttl.Err())
	}
	if err != nil {
		return glimpse{}, 0, storeError(err)
	}
	return glimpseOf(both.Val()), ttl.Val(), nil
}

// glimpseOf reads the answer to MGET of a value and its tombstone.
func glimpseOf(answer []any) glimpse {
	g := glimpse{seen: true}
	g.value, g.found = answer[0].(string)
	stone, _ := answer[1].(string)
	g.stone = tombstone(stone)
	return g
}

// bury deletes a value that a late writer brought back. The load has its
// answer already; what stays is deleted at next sight.
func (f *Factory) bury(ctx context.Context, r ref, stone tombstone) {
	keys := []string{f.valueKey(r), f.endKey(r), f.sidKey(r)}
	if _, err := f.run(ctx, endScript, keys, string(stone.reason()), ms(f.cfg.AbsoluteTimeout), ""); err != nil {
		f.log.WarnContext(ctx, "value of an ended session not deleted", "err", err)
		return
	}
	f.metrics.buried.Inc()
}

// heirOf returns the place to which the session at old went, if it may be
// followed there by this claim, else the *EndedError.
func (f *Factory) heirOf(ctx context.Context, old place, stone tombstone, by claim) (place, error) {
	heir, ok := stone.heir()
	if !ok {
		return place{}, &EndedError{Reason: stone.reason()}
	}
	if by == bound {
		return f.placeAt(heir), nil
	}
	next, err := f.rdb.Get(ctx, f.nextKey(old.ref)).Result()
	if err != nil && !isNil(err) {
		return place{}, storeError(err)
	}
	if id, ok := f.takeOver(old, next); ok {
		if at := f.placeOf(id); at.ref == heir {
			return at, nil
		}
	}
	return place{}, &EndedError{Reason: ReasonRotated}
}

// admit is what remains to be done for a session that was found: the end of
// its absolute life, its activity, its place in the user's index.
func (f *Factory) admit(ctx context.Context, s *Session, left time.Duration, now time.Time) error {
	if !now.Before(s.ExpiresAt()) {
		if err := f.end(ctx, s.ref, s.handle, ReasonExpired); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		return &EndedError{Reason: ReasonExpired}
	}
	if s.by != presented {
		return nil
	}
	// The session is there whatever becomes of the following.
	if f.touchDue(&s.stored, left, now) {
		if err := f.touch(ctx, s); err != nil {
			f.log.WarnContext(ctx, "session not touched", "session", s.handle, "err", err)
		}
	} else if !f.indexed.has(s.handle, s.UserID()) {
		f.index(ctx, s)
	}
	return nil
}

// Update loads a session, lets fn change it and saves it. When somebody else
// wrote meanwhile, fn runs again on the newest state, until the save
// succeeds or ctx ends; so fn may read an attribute and set it to what
// follows from it. Its error ends the update and is returned as it is. Others
// who write the session through this factory wait meanwhile, for a second at
// most, so fn is to be quick and to write the session in no other way.
func (f *Factory) Update(ctx context.Context, id string, fn func(*Session) error) (*Session, error) {
	defer f.lanes.enter(ctx, f.placeOf(id).ref)()
	s, err := f.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.update(ctx, fn)
}

// updateFollowing is Update for code that was bound to the session before.
func (f *Factory) updateFollowing(ctx context.Context, r ref, fn func(*Session) error) (*Session, error) {
	defer f.lanes.enter(ctx, r)()
	s, err := f.follow(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.update(ctx, fn)
}

func (s *Session) update(ctx context.Context, fn func(*Session) error) (*Session, error) {
	if err := fn(s); err != nil {
		return nil, err
	}
	if err := s.write(ctx, fn); err != nil {
		return nil, err
	}
	return s, nil
}

// peek looks at many refs at once, in their order and without any effect. Its
// error says why some were not seen: in a Cluster the others are, which are on
// other masters.
func (f *Factory) peek(ctx context.Context, refs []ref) ([]glimpse, error) {
	glimpses := make([]glimpse, len(refs))
	if _, cluster := f.rdb.(*redis.ClusterClient); cluster { // one MGET reads one slot
		return glimpses, f.peekSlots(ctx, refs, glimpses)
	}
	keys := make([]string, 0, 2*len(refs))
	for _, r := range refs {
		keys = append(keys, f.valueKey(r), f.endKey(r))
	}
	answer, err := f.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return glimpses, storeError(err)
	}
	for i := range glimpses {
		glimpses[i] = glimpseOf(answer[2*i:])
	}
	return glimpses, nil
}

func (f *Factory) peekSlots(ctx context.Context, refs []ref, glimpses []glimpse) error {
	cmds := make([]*redis.SliceCmd, len(refs))
	_, err := f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, r := range refs {
			cmds[i] = p.MGet(ctx, f.valueKey(r), f.endKey(r))
		}
		return nil
	})
	for i, cmd := range cmds {
		// When time runs out for one master go-redis marks the commands that
		// were answered by others, too. Their answers stay.
		if answer := cmd.Val(); len(answer) == 2 {
			glimpses[i] = glimpseOf(answer)
		}
	}
	return storeError(err)
}
