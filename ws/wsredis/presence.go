package wsredis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/ws"
)

const (
	turnCount   = 64
	reapPerCall = 500 // members per run of reap.lua: Redis does nothing else meanwhile

	reasonReplica = "replica" // the replica of a member died
	reasonClosed  = "closed"  // Redis brought back a member that had left
)

// presence is this replica's part in the presence hashes: a mirror of its own
// members, by which Redis is refilled.
type presence struct {
	// Fixed after construction.
	client      redis.UniversalClient
	leases      *leases
	incarnation string
	seed        maphash.Seed

	// turns order this replica's writes to one document's hash, so that a
	// refill cannot bring back a member that leaves meanwhile. They are held
	// over a round trip, therefore no mutex: waiting ends with the context.
	turns [turnCount]chan struct{}

	mu  sync.Mutex
	own map[string]map[string]ws.Member // document → connection → member
}

func newPresence(client redis.UniversalClient, l *leases) *presence {
	p := &presence{
		client: client, leases: l, incarnation: l.incarnation,
		seed: maphash.MakeSeed(), own: map[string]map[string]ws.Member{},
	}
	for i := range p.turns {
		p.turns[i] = make(chan struct{}, 1)
	}
	return p
}

// Announce implements ws.Presence.
func (b *Backplane) Announce(ctx context.Context, document string, change ws.PresenceChange) error {
	if change.Empty() {
		return nil
	}
	p := b.presence
	done, err := p.turn(ctx, document)
	if err != nil {
		return err
	}
	defer done()
	p.remember(document, change)
	// Members without a lease would be taken for those of a dead replica.
	err = p.leases.hold(ctx)
	if err == nil {
		err = p.write(ctx, document, change)
	}
	if err != nil {
		b.subs.wantSurveyOf(document) // should the caller not come back
	}
	return err
}

// Members implements ws.Presence.
func (b *Backplane) Members(ctx context.Context, document string) ([]ws.Member, error) {
	present, number, err := b.presence.whole(ctx, document)
	if errors.Is(err, errIncomplete) {
		b.subs.wantSurveyOf(document)
		b.wakeUp()
	}
	if err != nil {
		return nil, err
	}
	b.subs.membersRead(document, number)
	members := make([]ws.Member, 0, len(present))
	for _, m := range present {
		members = append(members, m.Member)
	}
	slices.SortFunc(members, func(a, b ws.Member) int { return strings.Compare(a.ConnectionID, b.ConnectionID) })
	return members, nil
}

func (p *presence) turn(ctx context.Context, document string) (done func(), err error) {
	turn := p.turns[maphash.String(p.seed, document)%turnCount]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: announce: %w", ws.ErrUnavailable, ctx.Err())
	}
}

func (p *presence) remember(document string, change ws.PresenceChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.own[document]
	if own == nil {
		own = map[string]ws.Member{}
		p.own[document] = own
	}
	for _, m := range slices.Concat(change.Joined, change.Updated) {
		own[m.ConnectionID] = m
	}
	for _, m := range change.Left {
		delete(own, m.ConnectionID)
	}
	if len(own) == 0 {
		delete(p.own, document)
	}
}

// cede forgets members that were away and whose place another replica's took.
func (p *presence) cede(document string, left []ws.Departure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.own[document]
	for _, d := range left {
		if own[d.ConnectionID].Away {
			delete(own, d.ConnectionID)
		}
	}
	if len(own) == 0 {
		delete(p.own, document)
	}
}

// members returns a copy of this replica's own members.
func (p *presence) members(document string) map[string]ws.Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.own[document])
}

// sample returns one of this replica's connections in the document, or "". One
// that is away may have been replaced: it is no sample.
func (p *presence) sample(document string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn, m := range p.own[document] {
		if !m.Away {
			return conn
		}
	}
	return ""
}

// write stores a change of own members and announces it. The caller has the
// document's turn.
func (p *presence) write(ctx context.Context, document string, change ws.PresenceChange) error {
	message, err := encode(presenceMessage{Type: kindPresence, Replica: p.incarnation, PresenceChange: change})
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	puts := slices.Concat(change.Joined, change.Updated)
	args := append(presenceArgs(document), message, len(puts))
	for _, m := range puts {
		value, err := encode(presentMember{Replica: p.incarnation, Member: m})
		if err != nil {
			return fmt.Errorf("announce: %w", err)
		}
		args = append(args, m.ConnectionID, value)
	}
	for _, m := range change.Left {
		args = append(args, m.ConnectionID)
	}
	return wrap("announce", announceScript.Run(ctx, p.client, presenceKeys(document), args...).Err())
}

// presenceKeys and presenceArgs are what every script on members takes first.
func presenceKeys(document string) []string {
	return []string{presenceKey(document), countKey(document)}
}

func presenceArgs(document string) []any {
	return []any{newsChannel(document), int64(presenceLife / time.Second)}
}

// present is one entry of a presence hash with its stored bytes.
type present struct {
	presentMember
	value string
}

// read returns the document's presence hash. Entries that cannot be read are
// left out: they are not ours.
func (p *presence) read(ctx context.Context, document string) (map[string]present, error) {
	values, err := p.client.HGetAll(ctx, presenceKey(document)).Result()
	if err != nil {
		return nil, wrap("read members", err)
	}
	members := make(map[string]present, len(values))
	for conn, value := range values {
		m := present{value: value}
		if json.Unmarshal([]byte(value), &m.presentMember) == nil && m.Member.ConnectionID == conn {
			members[conn] = m
		}
	}
	return members, nil
}

// errIncomplete: the presence hash was lost. All replicas are about to put
// their members back; who takes what is there for everybody sees the others
// leave.
var errIncomplete = fmt.Errorf("%w: members are being put back", ws.ErrUnavailable)

// whole is read, or errIncomplete when this replica's own members are missing.
// number is that of the newest announcement before, 0 when there is none.
func (p *presence) whole(ctx context.Context, document string) (members map[string]present, number uint64, err error) {
	done, err := p.turn(ctx, document) // what is being written is not missing
	if err != nil {
		return nil, 0, err
	}
	defer done()
	number, err = p.client.Get(ctx, countKey(document)).Uint64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, 0, wrap("read members", err)
	}
	if members, err = p.read(ctx, document); err != nil {
		return nil, 0, err
	}
	if conn := p.sample(document); conn != "" {
		if _, ok := members[conn]; !ok {
			return nil, 0, errIncomplete
		}
	}
	return members, number, nil
}

// refill puts right what Redis has of this replica's members, and returns how
// many it had to put back, and the other replicas that have members here.
func (p *presence) refill(ctx context.Context, document string) (put int, others map[string]struct{}, err error) {
	done, err := p.turn(ctx, document)
	if err != nil {
		return 0, nil, err
	}
	defer done()
	stored, err := p.read(ctx, document)
	if err != nil {
		return 0, nil, err
	}
	own := p.members(document)
	var change ws.PresenceChange
	for conn, m := range own {
		value, err := encode(presentMember{Replica: p.incarnation, Member: m})
		if err != nil {
			return 0, nil, fmt.Errorf("refill: %w", err)
		}
		if _, there := stored[conn]; !there && m.Away {
			continue // its place may have been taken a moment ago
		}
		if stored[conn].value != string(value) {
			change.Joined = append(change.Joined, m)
		}
	}
	others = map[string]struct{}{}
	for conn, m := range stored {
		if m.Replica != p.incarnation {
			others[m.Replica] = struct{}{}
		} else if _, here := own[conn]; !here {
			change.Left = append(change.Left, ws.Departure{Member: m.Member, Reason: reasonClosed})
		}
	}
	if change.Empty() {
		return 0, others, nil
	}
	return len(change.Joined), others, p.write(ctx, document, change)
}

// reap removes the document's members whose replica is dead, and returns how
// many of them this replica was the one to remove.
func (p *presence) reap(ctx context.Context, document string, dead map[string]struct{}) (int, error) {
	stored, err := p.read(ctx, document)
	if err != nil {
		return 0, err
	}
	var args []any
	for conn, m := range stored {
		if _, ok := dead[m.Replica]; !ok {
			continue
		}
		departure, err := encode(ws.Departure{Member: m.Member, Reason: reasonReplica})
		if err != nil {
			return 0, fmt.Errorf("reap: %w", err)
		}
		args = append(args, conn, m.value, departure)
	}
	start, err := encode(presenceMessage{Type: kindPresence, Replica: p.incarnation})
	if err != nil {
		return 0, fmt.Errorf("reap: %w", err)
	}
	start = append(start[:len(start)-1], `,"left":[`...)
	reaped := 0
	for chunk := range slices.Chunk(args, 3*reapPerCall) {
		n, err := reapScript.Run(ctx, p.client, presenceKeys(document),
			append(append(presenceArgs(document), start), chunk...)...).Int()
		if err != nil {
			return reaped, wrap("reap", err)
		}
		reaped += n
	}
	return reaped, nil
}

// release takes this replica's members and lease away. Nobody has to wait for
// the lease to end then. Members that are away stay for as long as those of a
// dead replica do: others of their sessions may take their places.
func (p *presence) release(ctx context.Context) error {
	p.mu.Lock()
	own := p.own
	p.own = map[string]map[string]ws.Member{}
	p.mu.Unlock()
	for document, members := range own {
		var change ws.PresenceChange
		for _, m := range members {
			if !m.Away {
				change.Left = append(change.Left, ws.Departure{Member: m, Reason: reasonReplica})
			}
		}
		if change.Empty() {
			continue
		}
		if err := p.write(ctx, document, change); err != nil {
			return err
		}
	}
	return p.leases.release(ctx)
}
