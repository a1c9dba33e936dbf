package wsredis

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/ws"
)

// glance looks at open documents where nothing has happened: four plain reads
// each, all in one round trip for each server, at a third of what the script
// costs. Where all is as it was left that is the check; it returns the
// documents that the script has to look at.
//
// What a glance cannot see is that Redis' history of writes is another one. So
// it is for documents only that the script has seen since that was so; history
// names it, empty: it is not known.
func (b *Backplane) glance(ctx context.Context, topics []*topic, history string) (others []*topic) {
	var calm []*topic
	for _, t := range topics {
		if b.subs.calm(t, history, b.prolongEvery()) {
			calm = append(calm, t)
		} else {
			others = append(others, t)
		}
	}
	if len(calm) == 0 {
		return others
	}
	seen := make([]sight, len(calm))
	// Each command has its own error.
	_, _ = b.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, t := range calm {
			seen[i] = look(ctx, p, t.document, b.presence.sample(t.document))
		}
		return nil
	})
	for i, t := range calm {
		at, number, ok := seen[i].asLeft(b.subs.position(t))
		if !ok {
			others = append(others, t)
			continue
		}
		b.subs.checked(t, at, number)
	}
	return others
}

// sight is what a glance reads of one document.
type sight struct {
	doc     *redis.SliceCmd
	logged  *redis.IntCmd
	count   *redis.StringCmd
	present *redis.BoolCmd // nil: this replica has no member there
}

func look(ctx context.Context, p redis.Pipeliner, document, conn string) sight {
	keys := logKeys(document)
	s := sight{
		doc:    p.HMGet(ctx, keys[0], "epoch", "seq"),
		logged: p.Exists(ctx, keys[1]),
		count:  p.Get(ctx, countKey(document)),
	}
	if conn != "" {
		s.present = p.HExists(ctx, presenceKey(document), conn)
	}
	return s
}

// asLeft returns where the log stands and the number of the newest
// announcement of members; ok is false when something is not as it was left at
// known, or could not be read.
func (s sight) asLeft(known ws.Position) (at ws.Position, number uint64, ok bool) {
	values := s.doc.Val()
	if s.doc.Err() != nil || len(values) != 2 || s.logged.Err() != nil {
		return at, 0, false
	}
	epoch, _ := values[0].(string)
	text, _ := values[1].(string)
	seq, err := strconv.ParseUint(text, 10, 64)
	if err != nil || epoch != known.Epoch || seq < known.Seq || seq > 0 && s.logged.Val() == 0 {
		return at, 0, false
	}
	number, err = s.count.Uint64()
	if err != nil && !errors.Is(err, redis.Nil) || s.present != nil && !s.present.Val() {
		return at, 0, false
	}
	return ws.Position{Epoch: epoch, Seq: seq}, number, true
}

// whereabouts is what a document's home is made of, in INFO replication.
var whereabouts = regexp.MustCompile(`master_replid2?:[0-9a-f]+|connected_slaves:\d+`)

// histories names the histories of writes of all masters, as home.lua does
// of one. Empty when one of them does not tell.
func (b *Backplane) histories(ctx context.Context) string {
	cluster, ok := b.client.(*redis.ClusterClient)
	if !ok {
		return historyOf(ctx, b.client)
	}
	names := make(chan []string, 1)
	names <- nil
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		name := historyOf(ctx, master)
		names <- append(<-names, name)
		return nil
	})
	all := <-names
	if err != nil || slices.Contains(all, "") {
		return ""
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func historyOf(ctx context.Context, client redis.Cmdable) string {
	info, err := client.Info(ctx, "replication").Result()
	if err != nil {
		return ""
	}
	return strings.Join(whereabouts.FindAllString(info, -1), " ")
}

// prolongEvery is how often the lives of a document's keys are looked at.
func (b *Backplane) prolongEvery() time.Duration { return min(b.retention, presenceLife) / prolongs }
