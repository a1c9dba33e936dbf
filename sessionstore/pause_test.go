package sessionstore

import (
	"testing"
	"testing/synctest"
	"time"
)

// Two sockets that wrote without a break kept a login out: whoever paused
// after each conflict came back with old bytes each time.
func TestEveryOtherAttemptIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var paused time.Duration
		for conflicts := 1; conflicts <= 100; conflicts++ {
			began := time.Now()
			if err := pause(t.Context(), conflicts); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			if conflicts%2 == 1 && took > 0 || took > lastPause {
				t.Errorf("%s after conflict %d", took, conflicts)
			}
			paused += took
		}
		if paused == 0 {
			t.Error("nobody gives way")
		}
	})
}
