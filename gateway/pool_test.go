package gateway

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

func poolOf(t *testing.T, balance string, n int) *pool {
	t.Helper()
	u := Upstream{Balance: balance}
	for i := range n {
		u.Targets = append(u.Targets, fmt.Sprintf("http://target-%d:80", i))
	}
	p, err := newPool(&Gateway{}, u.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func exchangeOf(handle string) *exchange {
	return &exchange{who: identity{handle: handle}, session: &session{client: "10.0.0.1:1"}}
}

func TestRoundRobin(t *testing.T) {
	p := poolOf(t, BalanceRoundRobin, 3)
	got := map[*target]int{}
	for range 9 {
		got[p.pick(exchangeOf(""), nil)]++
	}
	for _, target := range p.targets {
		if got[target] != 3 {
			t.Errorf("%s: %d of 9", target.id, got[target])
		}
	}
}

func TestLeastRequests(t *testing.T) {
	p := poolOf(t, BalanceLeastRequests, 3)
	p.targets[0].pending.Store(2)
	p.targets[1].pending.Store(1)
	p.targets[2].pending.Store(2)
	if got := p.pick(exchangeOf(""), nil); got != p.targets[1] {
		t.Error(got.id)
	}
	if got := p.pick(exchangeOf(""), []*target{p.targets[1]}); got == p.targets[1] {
		t.Error("the one that was tried")
	}
}

// A session stays with its target; when that goes, only its sessions move.
func TestSessionHash(t *testing.T) {
	p := poolOf(t, BalanceSessionHash, 4)
	gone := p.targets[2]
	counts := map[*target]int{}
	for range 400 {
		x := exchangeOf(sessionstore.NewHandle())
		first := p.pick(x, nil)
		counts[first]++
		if again := p.pick(x, nil); again != first {
			t.Fatal("moved for no reason")
		}
		gone.sick.Store(true)
		if other := p.pick(x, nil); (first == gone) == (other == first) {
			t.Fatalf("from %s to %s", first.id, other.id)
		}
		gone.sick.Store(false)
	}
	for _, target := range p.targets {
		if counts[target] < 60 {
			t.Errorf("%s has %d of 400", target.id, counts[target])
		}
	}
}

func TestEjection(t *testing.T) {
	p := poolOf(t, BalanceRoundRobin, 2)
	dead, now := p.targets[0], time.Now()
	for i, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		dead.eject(now)
		if end := now.Add(pause * time.Second); dead.available(end.UnixNano()-1) || !dead.available(end.UnixNano()) {
			t.Errorf("ejection %d does not last %d s", i, pause)
		}
	}
	for range 4 {
		if p.pick(exchangeOf(""), nil) == dead {
			t.Error("an ejected target was picked")
		}
	}
	p.targets[1].eject(now)
	seen := map[*target]bool{}
	for range 4 {
		seen[p.pick(exchangeOf(""), nil)] = true
	}
	if len(seen) != 2 {
		t.Error("with none available all are tried")
	}
	dead.answered()
	if !dead.available(now.UnixNano()) {
		t.Error("an answer does not end the ejection")
	}
}

func TestActiveHealth(t *testing.T) {
	var sick atomic.Bool
	serve := func(name string, sick *atomic.Bool) string {
		return upstream(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && sick.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, name)
		}).URL
	}
	var never atomic.Bool
	g := start(t, toUpstream(Upstream{
		Targets: []string{serve("a", &sick), serve("b", &never)}, Balance: BalanceRoundRobin,
		Health: &Health{Path: "/healthz", Interval: 5 * time.Millisecond},
	}))
	seen := func() string {
		got := map[string]bool{}
		for range 4 {
			got[get(t, g.url()).body] = true
		}
		return fmt.Sprint(got)
	}
	if s := seen(); s != "map[a:true b:true]" {
		t.Error(s)
	}
	sick.Store(true)
	eventually(t, "the sick target is passed over", func() bool { return seen() == "map[b:true]" })
	sick.Store(false)
	eventually(t, "the target comes back", func() bool { return seen() == "map[a:true b:true]" })
}
