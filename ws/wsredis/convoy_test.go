package wsredis

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

var echoScript = redis.NewScript("redis.call('INCR', KEYS[1]); return ARGV[1]")

func echo(n int) call { return call{[]string{"n:" + strconv.Itoa(n%7)}, []any{strconv.Itoa(n)}} }

// Each caller gets the answer to its own call, and each call is made once, also when Redis forgets the script.
func TestConvoyAnswersEach(t *testing.T) {
	const callers, each = 50, 40
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		client := s.Client(t)
		v := newConvoy(client, echoScript)
		var g errgroup.Group
		for c := range callers {
			g.Go(func() error {
				for i := range each {
					n := c*each + i
					if got, err := v.run(t.Context(), echo(n)).Text(); err != nil || got != strconv.Itoa(n) {
						return errors.Join(err, errors.New("call "+strconv.Itoa(n)+" was answered "+strconv.Quote(got)))
					}
					if n == 3*each {
						if err := client.ScriptFlush(t.Context()).Err(); err != nil {
							return err
						}
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
	v := newConvoy(s.Client(t), echoScript)
	var wg sync.WaitGroup
	for c := range 60 {
		wg.Go(func() {
			for i := range 60 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(400))*time.Microsecond)
				n := c*60 + i
				got, err := v.run(ctx, echo(n)).Text()
				cancel()
				if err == nil && got != strconv.Itoa(n) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("call %d: %q, %v", n, got, err)
				}
			}
		})
	}
	wg.Wait()
	atRest(t, v)
	if got, err := v.run(t.Context(), echo(1)).Text(); err != nil || got != "1" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// A call that has not left is not made after its caller was told so.
func TestConvoyForgetsWhoLeft(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	client := redis.NewClient(&redis.Options{Addr: link.Addr(), ContextTimeoutEnabled: true, MaxRetries: -1, ReadTimeout: -1})
	t.Cleanup(func() { _ = client.Close() })
	v := newConvoy(client, echoScript)
	if err := v.run(t.Context(), echo(0)).Err(); err != nil {
		t.Fatal(err)
	}
	link.Blackhole(true)
	var wg sync.WaitGroup
	for deadline := time.Now().Add(convoyPatience); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		full := v.trips == convoyTrips && len(v.waiting) == 0
		v.mu.Unlock()
		if full { // every trip is under way, and hangs
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the trips did not begin")
		}
		wg.Go(func() { v.run(t.Context(), call{[]string{"left"}, []any{"x"}}) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.run(ctx, call{[]string{"stayed"}, []any{"x"}}).Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("answered %v", err)
	}
	link.Cut() // ends the trips at once
	wg.Wait()
	link.Blackhole(false)
	link.Heal()
	if got, err := v.run(t.Context(), echo(2)).Text(); err != nil || got != "2" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	if n, err := s.Client(t).Exists(t.Context(), "stayed").Result(); err != nil || n != 0 {
		t.Errorf("a call was made that had been given up: %d, %v", n, err)
	}
}

// atRest: nobody waits, and every trip has ended or will without anybody's help.
func atRest(t *testing.T, v *convoy) {
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
