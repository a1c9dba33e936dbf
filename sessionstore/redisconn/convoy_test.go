package redisconn

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

const trips = 8

// echo counts a call and is answered its number.
func echo(ctx context.Context, v *Convoy, n int) (string, error) {
	return call(ctx, v, "n:"+strconv.Itoa(n%7), strconv.Itoa(n))
}

func call(ctx context.Context, v *Convoy, key, answer string) (string, error) {
	incr, say := redis.NewIntCmd(ctx, "incr", key), redis.NewStringCmd(ctx, "echo", answer)
	if err := v.Do(ctx, incr, say); err != nil {
		return "", err
	}
	return say.Val(), errors.Join(incr.Err(), say.Err())
}

// Each caller gets the answer to its own call, and each call is made once.
func TestConvoyAnswersEach(t *testing.T) {
	const callers, each = 50, 40
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		client := s.Client(t)
		v := NewConvoy(client, trips)
		var g errgroup.Group
		for c := range callers {
			g.Go(func() error {
				for i := range each {
					n := c*each + i
					if got, err := echo(t.Context(), v, n); err != nil || got != strconv.Itoa(n) {
						return errors.Join(err, errors.New("call "+strconv.Itoa(n)+" was answered "+strconv.Quote(got)))
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		made := 0
		for i := range 7 {
			n, err := client.Get(t.Context(), "n:"+strconv.Itoa(i)).Int()
			if err != nil {
				t.Fatal(err)
			}
			made += n
		}
		if made != callers*each {
			t.Errorf("%d calls were made, %d asked for", made, callers*each)
		}
		atRest(t, v)
	})
}

// Who gives up while waiting is answered at once and its call is not made; the convoy goes on without it, whatever part
// it had in it.
func TestConvoyGoesOnWithoutThoseWhoGiveUp(t *testing.T) {
	s := redistest.Start(t)
	v := NewConvoy(s.Client(t), trips)
	var wg sync.WaitGroup
	for c := range 60 {
		wg.Go(func() {
			for i := range 60 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(400))*time.Microsecond)
				n := c*60 + i
				got, err := echo(ctx, v, n)
				cancel()
				if err == nil && got != strconv.Itoa(n) || err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("call %d: %q, %v", n, got, err)
				}
			}
		})
	}
	wg.Wait()
	atRest(t, v)
	if got, err := echo(t.Context(), v, 1); err != nil || got != "1" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// A call that has not left is not made after its caller was told so.
func TestConvoyForgetsWhoLeft(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	client := redis.NewClient(&redis.Options{Addr: link.Addr(), ContextTimeoutEnabled: true, MaxRetries: -1, ReadTimeout: -1})
	t.Cleanup(func() { _ = client.Close() })
	v := NewConvoy(client, trips)
	if _, err := echo(t.Context(), v, 0); err != nil {
		t.Fatal(err)
	}
	link.Blackhole(true)
	var wg sync.WaitGroup
	for deadline := time.Now().Add(convoyPatience); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		full := v.trips == trips && len(v.waiting) == 0
		v.mu.Unlock()
		if full { // every trip is under way, and hangs
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the trips did not begin")
		}
		wg.Go(func() { _, _ = call(t.Context(), v, "left", "x") })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := call(ctx, v, "stayed", "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("answered %v", err)
	}
	link.Cut() // ends the trips at once
	wg.Wait()
	link.Blackhole(false)
	link.Heal()
	if got, err := echo(t.Context(), v, 2); err != nil || got != "2" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	if n, err := s.Client(t).Exists(t.Context(), "stayed").Result(); err != nil || n != 0 {
		t.Errorf("a call was made that had been given up: %d, %v", n, err)
	}
}

// atRest: nobody waits, and every trip has ended or will without anybody's help.
func atRest(t *testing.T, v *Convoy) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		v.mu.Lock()
		trips, waiting := v.trips, len(v.waiting)
		v.mu.Unlock()
		if trips == 0 && waiting == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d trips, %d waiting", trips, waiting)
		}
		time.Sleep(time.Millisecond)
	}
}

// Commands of a pipeline that was refused before it was sent have its error: somebody looks at their answers.
func TestConvoyTellsOfRefusedPipelines(t *testing.T) {
	s := redistest.Start(t)
	client := s.Client(t)
	refusal := errors.New("refused")
	client.AddHook(refusing{refusal})
	v := NewConvoy(client, trips)
	if _, err := echo(t.Context(), v, 1); !errors.Is(err, refusal) {
		t.Errorf("answered %v", err)
	}
}

// refusing is a hook that lets no pipeline pass, and says so nowhere but in its own error.
type refusing struct{ err error }

func (refusing) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (refusing) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (r refusing) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(context.Context, []redis.Cmder) error { return r.err }
}

// While every trip hangs, who comes waits for one but a moment, and then fails by its own time.
func TestConvoyIsNotHeldUp(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	client := redis.NewClient(&redis.Options{Addr: link.Addr(), ContextTimeoutEnabled: true, MaxRetries: -1, ReadTimeout: -1, PoolSize: 50})
	t.Cleanup(func() { _ = client.Close() })
	v := NewConvoy(client, trips)
	if _, err := echo(t.Context(), v, 0); err != nil {
		t.Fatal(err)
	}
	link.Blackhole(true)
	var hung sync.WaitGroup
	for range trips {
		hung.Go(func() { _, _ = call(t.Context(), v, "hung", "x") })
	}
	for deadline := time.Now().Add(convoyPatience); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		full := v.trips == trips
		v.mu.Unlock()
		if full {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the trips did not begin")
		}
	}
	link.Blackhole(false) // for those who come now: what was swallowed stays so
	if got, err := echo(t.Context(), v, 3); err != nil || got != "3" {
		t.Errorf("beside the trips that hang: %q, %v", got, err)
	}
	link.Cut()
	hung.Wait()
	link.Heal()
	atRest(t, v)
}

// A Redis that is slow gets shorter trips, not more of them; once it is quick again they grow.
func TestConvoyMakesShortTripsWhereTheyTakeLong(t *testing.T) {
	v := &Convoy{maxTrips: trips, calls: convoyCalls}
	v.adapt(convoyCalls, 4*convoyLong)
	v.adapt(convoyCalls, 4*convoyLong) // one that was under way meanwhile
	if v.calls != convoyCalls/2 {
		t.Errorf("%d calls after a long trip of %d", v.calls, convoyCalls)
	}
	v.adapt(1, 4*convoyLong) // a hiccup of the link
	if v.calls != convoyCalls/2 {
		t.Errorf("%d calls after a long trip of one", v.calls)
	}
	for range 20 {
		v.adapt(v.calls, 2*convoyLong)
	}
	if v.calls != convoyFewest {
		t.Errorf("%d calls, each of them takes long", v.calls)
	}
	for range 2 * convoyCalls {
		v.adapt(v.calls, convoyLong/2) // far away, but no slower for many
	}
	if v.calls != convoyCalls {
		t.Errorf("%d calls where none takes long", v.calls)
	}
}

// hung is a client's hook that has the first commands wait, and lets others pass.
type hung struct {
	mu      sync.Mutex
	left    int
	release chan struct{}
}

func (h *hung) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *hung) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *hung) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.mu.Lock()
		wait := cmds[0].Name() == "incr" && h.left > 0 // not a handshake
		if wait {
			h.left--
		}
		h.mu.Unlock()
		if wait {
			<-h.release
		}
		return next(ctx, cmds)
	}
}

// Beside trips that hang those get on, too, who have less patience than it takes to notice; and the trips that were begun
// for that are over once the others are, while a crowd still waits.
func TestConvoyBesideTripsThatHang(t *testing.T) {
	s := redistest.Start(t)
	client := s.Client(t)
	h := &hung{left: trips, release: make(chan struct{})}
	client.AddHook(h)
	v := NewConvoy(client, trips)
	var all sync.WaitGroup
	for n := range trips {
		all.Go(func() { _, _ = echo(t.Context(), v, n) })
	}
	for deadline := time.Now().Add(convoyPatience); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		all := h.left == 0
		h.mu.Unlock()
		if all {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the trips did not begin")
		}
	}
	for deadline := time.Now().Add(10 * convoyWait); ; {
		ctx, cancel := context.WithTimeout(t.Context(), convoyWait/2)
		got, err := echo(ctx, v, 7)
		cancel()
		if err == nil && got == "7" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	stop := make(chan struct{})
	for c := range 300 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = echo(t.Context(), v, c)
				}
			}
		})
	}
	close(h.release)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		now, crowd := v.trips, len(v.waiting)
		v.mu.Unlock()
		if now <= trips && crowd > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d trips", now)
		}
	}
	close(stop)
	all.Wait()
	atRest(t, v)
}
