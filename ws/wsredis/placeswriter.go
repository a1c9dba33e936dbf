package wsredis

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"
)

// Bounds of one script: Redis does nothing else meanwhile.
const (
	placesPerWrite = 256 // waiters
	fieldsPerWrite = 1000
)

// Run writes this replica's hash until ctx ends, then deletes it; nobody has to
// wait for its end. It is called once, and always returns nil.
func (p *Places) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.tick)
	defer ticker.Stop()
	for {
		due := false
		select {
		case <-p.wake:
		case <-ticker.C:
			due = true
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.tick)
			defer cancel()
			if err := p.client.Unlink(ctx, p.key).Err(); err != nil {
				p.logger.Warn("the connections of this replica are counted until its lease ends", "err", err)
			}
			return nil
		}
		for p.write(ctx, due) {
			due = false
		}
	}
}

// write takes one batch to Redis, and reports whether there may be more. An
// idle replica writes with every tick, which keeps its hash alive and finds
// out when it was lost.
func (p *Places) write(ctx context.Context, due bool) (more bool) {
	b, ok := p.next(due)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, p.tick)
	defer cancel()
	given, err := p.send(ctx, &b)
	if err != nil {
		p.logger.Debug("connections not counted", "waiting", len(b.waiting), "err", err)
	}
	p.settle(b, given, err)
	return err == nil
}

// batch is what one script is about.
type batch struct {
	anew    bool
	fields  []string
	counts  []int // of fields
	index   map[string]int
	waiting []*waiter
}

// add returns the place of a field in the script's arguments, from 1.
func (b *batch) add(field string, count int) int {
	if i, ok := b.index[field]; ok {
		return i
	}
	b.fields, b.counts = append(b.fields, field), append(b.counts, count)
	b.index[field] = len(b.fields)
	return len(b.fields)
}

// next takes what is to be written: those who wait first. ok is false when
// there is nothing and none is due.
func (p *Places) next(due bool) (b batch, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !due && len(p.waiting) == 0 && len(p.changed) == 0 {
		return b, false
	}
	b = batch{anew: p.anew, index: map[string]int{}}
	if p.anew {
		for field := range p.held {
			p.changed[field] = struct{}{}
		}
		p.anew = false
	}
	n := min(len(p.waiting), placesPerWrite)
	b.waiting = slices.Clone(p.waiting[:n])
	if p.waiting = slices.Delete(p.waiting, 0, n); len(p.waiting) == 0 {
		p.waiting = nil
	}
	for _, w := range b.waiting {
		for _, field := range fieldsOf(w.place) {
			b.add(field, p.held[field])
			delete(p.changed, field)
		}
	}
	for field := range p.changed {
		if len(b.fields) >= fieldsPerWrite {
			break
		}
		b.add(field, p.held[field])
		delete(p.changed, field)
	}
	return b, true
}

var errPlacesReply = errors.New("places: unexpected reply")

// send runs the script, again where it says what the caller did not know.
func (p *Places) send(ctx context.Context, b *batch) (given []bool, err error) {
	const attempts = 5 // another replica may come in between, but not for ever
	before := p.writes
	if len(b.fields) > 0 {
		p.writes++
	}
	for range attempts {
		keys := append([]string{placesSet, p.key}, p.others...)
		reply, err := placesScript.Run(ctx, p.client, keys, p.args(b, before)...).Slice()
		if err != nil {
			return nil, wrap("count connections", err)
		}
		r := reader{values: reply}
		switch r.seq() {
		case 1:
			return p.given(&r, b)
		case 0:
			p.others = slices.DeleteFunc(r.texts(), func(key string) bool { return key == p.key })
		case 2:
			p.metrics.rewritten.Inc()
			p.logger.Info("the count of this replica's connections was lost; it is written again")
			p.lose(b)
		}
		if r.failed {
			return nil, errPlacesReply
		}
	}
	return nil, wrap("count connections", context.DeadlineExceeded)
}

func (p *Places) given(r *reader, b *batch) ([]bool, error) {
	given := r.flags()
	gone := r.texts()
	if r.failed || len(given) != len(b.waiting) {
		return nil, errPlacesReply
	}
	p.others = slices.DeleteFunc(p.others, func(key string) bool { return slices.Contains(gone, key) })
	return given, nil
}

// lose has the hash written anew: this batch's fields at once, the others next.
func (p *Places) lose(b *batch) {
	b.anew = true
	p.mu.Lock()
	defer p.mu.Unlock()
	for field := range p.held {
		if _, ok := b.index[field]; !ok {
			p.changed[field] = struct{}{}
		}
	}
}

func (p *Places) args(b *batch, before uint64) []any {
	expected := ""
	if !b.anew {
		expected = strconv.FormatUint(before, 10)
	}
	args := []any{p.life.Milliseconds(), int64(placesSetLife / time.Second), p.writes, expected, len(b.fields)}
	for i, field := range b.fields {
		args = append(args, field, b.counts[i])
	}
	for _, w := range b.waiting {
		user := 0
		if w.place.User != "" {
			user = b.index[userField(w.place.User)]
		}
		args = append(args, b.index[sessionField(w.place.Session)], user, w.limits.PerSession, w.limits.PerUser)
	}
	return args
}

// settle tells those who waited. When Redis did not answer, or it is not known
// what became of the write, what this replica has decides, and all of it is
// written anew.
func (p *Places) settle(b batch, given []bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.anew = p.anew || err != nil
	for i, w := range b.waiting {
		ok, result := false, resultLocal
		if err != nil {
			ok = p.roomLocked(w)
		} else if ok, result = given[i], resultRefused; ok {
			result = resultTaken
		}
		p.metrics.takes.WithLabelValues(result).Inc()
		if ok {
			for _, field := range fieldsOf(w.place) {
				p.countLocked(field, 1)
			}
		}
		if ok && w.left {
			p.addLocked(w.place, -1)
			notify(p.wake)
		}
		w.given <- ok
	}
}

// roomLocked reports whether w may have a place, for all that is known here.
func (p *Places) roomLocked(w *waiter) bool {
	return (w.limits.PerSession == 0 || p.held[sessionField(w.place.Session)] < w.limits.PerSession) &&
		(w.place.User == "" || w.limits.PerUser == 0 || p.held[userField(w.place.User)] < w.limits.PerUser)
}

// countIn reads a field of a hash; what is not there, or no number, counts 0.
func countIn(value any) int {
	text, _ := value.(string)
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
