package wstest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// PlacesPair is two replicas that count together, and what can happen to them.
type PlacesPair struct {
	A, B ws.Places

	// KillA ends replica A as a crash does.
	KillA func()

	// Lose makes the store forget all counts. Nil: it cannot.
	Lose func()
}

// PlacesContract runs what every Places must pass. open makes a fresh pair for
// each subtest and cleans up with the test.
func PlacesContract(t *testing.T, open func(t *testing.T) PlacesPair) {
	for _, c := range []struct {
		name string
		test func(*testing.T, PlacesPair)
	}{
		{"limits over both replicas", testPlaceLimits},
		{"no limits", testNoPlaceLimits},
		{"one wins the last place", testLastPlace},
		{"move", testMovedPlace},
		{"count", testPlaceCount},
		{"dead replica", testPlacesOfTheDead},
		{"lost counts", testLostPlaces},
		{"ended context", testPlaceInVain},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

var (
	ada    = ws.Place{Session: "ada", User: "1"}
	adaToo = ws.Place{Session: "ada-too", User: "1"}
	bob    = ws.Place{Session: "bob", User: "2"}
	nobody = ws.Place{Session: "nobody"}
)

func mustTake(t *testing.T, p ws.Places, place ws.Place, limits ws.PlaceLimits) {
	t.Helper()
	if err := p.Take(t.Context(), place, limits); err != nil {
		t.Fatalf("take %+v: %v", place, err)
	}
}

func mustNotTake(t *testing.T, p ws.Places, place ws.Place, limits ws.PlaceLimits) {
	t.Helper()
	if err := p.Take(t.Context(), place, limits); !errors.Is(err, ws.ErrCrowded) {
		t.Fatalf("take %+v: %v", place, err)
	}
}

// eventuallyTake waits for a place to become free: releases take a moment to
// be heard of elsewhere.
func eventuallyTake(t *testing.T, p ws.Places, place ws.Place, limits ws.PlaceLimits) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := p.Take(t.Context(), place, limits)
		if err == nil {
			return
		}
		if !errors.Is(err, ws.ErrCrowded) || time.Now().After(deadline) {
			t.Fatalf("take %+v: %v", place, err)
		}
	}
}

func testPlaceLimits(t *testing.T, p PlacesPair) {
	limits := ws.PlaceLimits{PerSession: 2, PerUser: 3}
	mustTake(t, p.A, ada, limits)
	mustTake(t, p.B, ada, limits)
	mustNotTake(t, p.A, ada, limits)
	mustNotTake(t, p.B, ada, limits)
	mustTake(t, p.B, adaToo, limits)
	mustNotTake(t, p.A, adaToo, limits)
	mustTake(t, p.A, bob, limits)
	mustTake(t, p.B, nobody, limits)
	mustTake(t, p.A, nobody, limits)
	mustNotTake(t, p.B, nobody, limits)

	p.B.Release(ada)
	mustTake(t, p.B, ada, limits) // at once where it was given back
	p.B.Release(ada)
	eventuallyTake(t, p.A, ada, limits)
}

func testNoPlaceLimits(t *testing.T, p PlacesPair) {
	for range 20 {
		mustTake(t, p.A, ada, ws.PlaceLimits{})
		mustTake(t, p.B, ada, ws.PlaceLimits{PerSession: 100})
	}
	limits := ws.PlaceLimits{PerUser: 20}
	mustNotTake(t, p.B, ada, limits)
	for range 40 {
		p.A.Release(ada)
		p.B.Release(ada)
	}
	eventuallyTake(t, p.B, ada, ws.PlaceLimits{PerUser: 1})
}

func testLastPlace(t *testing.T, p PlacesPair) {
	limits := ws.PlaceLimits{PerSession: 5, PerUser: 7}
	var wg sync.WaitGroup
	var mu sync.Mutex
	given := map[ws.Place]int{}
	for i := range 40 {
		replica := []ws.Places{p.A, p.B}[i%2]
		place := []ws.Place{ada, adaToo}[i/2%2]
		wg.Go(func() {
			err := replica.Take(t.Context(), place, limits)
			if err != nil && !errors.Is(err, ws.ErrCrowded) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				given[place]++
			}
		})
	}
	wg.Wait()
	if given[ada] > 5 || given[adaToo] > 5 || given[ada]+given[adaToo] != 7 {
		t.Errorf("given: %v", given)
	}
}

func testMovedPlace(t *testing.T, p PlacesPair) {
	limits := ws.PlaceLimits{PerUser: 2}
	mustTake(t, p.A, nobody, limits)
	mustTake(t, p.A, ada, limits)
	p.A.Move(nobody, ws.Place{Session: nobody.Session, User: ada.User})
	mustNotTake(t, p.A, adaToo, limits)
	if got := mustCount(t, p.A, "nobody", "ada"); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("counts: %v", got)
	}
	p.A.Release(ws.Place{Session: nobody.Session, User: ada.User})
	mustTake(t, p.A, adaToo, limits)
}

func mustCount(t *testing.T, p ws.Places, sessions ...string) []int {
	t.Helper()
	counts, err := p.Count(t.Context(), sessions)
	if err != nil || len(counts) != len(sessions) {
		t.Fatalf("count: %v, %v", counts, err)
	}
	return counts
}

// eventuallyCount waits for what a replica has been told to be seen by another.
func eventuallyCount(t *testing.T, p ws.Places, session string, want int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for got := mustCount(t, p, session)[0]; got != want; got = mustCount(t, p, session)[0] {
		if time.Now().After(deadline) {
			t.Fatalf("%s has %d, not %d", session, got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func testPlaceCount(t *testing.T, p PlacesPair) {
	limits := ws.PlaceLimits{PerSession: 10}
	mustTake(t, p.A, ada, limits)
	mustTake(t, p.A, ada, limits)
	mustTake(t, p.B, ada, limits)
	mustTake(t, p.B, bob, limits)
	for _, replica := range []ws.Places{p.A, p.B} {
		if got := mustCount(t, replica, "bob", "none", "ada"); !slices.Equal(got, []int{1, 0, 3}) {
			t.Errorf("counts: %v", got)
		}
		if got := mustCount(t, replica); len(got) != 0 {
			t.Errorf("counts: %v", got)
		}
	}
	p.A.Release(ada)
	p.A.Release(ada)
	eventuallyCount(t, p.B, "ada", 1)
}

func testPlacesOfTheDead(t *testing.T, p PlacesPair) {
	limits := ws.PlaceLimits{PerSession: 2}
	mustTake(t, p.A, ada, limits)
	mustTake(t, p.A, ada, limits)
	mustNotTake(t, p.B, ada, limits)
	p.KillA()
	eventuallyTake(t, p.B, ada, limits)
	mustTake(t, p.B, ada, limits)
	mustNotTake(t, p.B, ada, limits)
	if got := mustCount(t, p.B, "ada"); got[0] != 2 {
		t.Errorf("counts: %v", got)
	}
}

func testLostPlaces(t *testing.T, p PlacesPair) {
	if p.Lose == nil {
		return
	}
	limits := ws.PlaceLimits{PerSession: 3}
	mustTake(t, p.A, ada, limits)
	mustTake(t, p.A, ada, limits)
	mustTake(t, p.B, ada, limits)
	p.Lose()
	eventuallyCount(t, p.A, "ada", 3)
	eventuallyCount(t, p.B, "ada", 3)
	mustNotTake(t, p.B, ada, limits)
	p.A.Release(ada)
	eventuallyTake(t, p.B, ada, limits)
}

func testPlaceInVain(t *testing.T, p PlacesPair) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	limits := ws.PlaceLimits{PerSession: 1}
	for range 50 {
		if err := p.A.Take(ctx, ada, limits); err != nil && !errors.Is(err, ws.ErrUnavailable) {
			t.Fatal(err)
		} else if err == nil { // it was quicker than the look at the context
			p.A.Release(ada)
		}
	}
	eventuallyTake(t, p.B, ada, limits)
	eventuallyCount(t, p.A, "ada", 1)
}
