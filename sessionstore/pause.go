package sessionstore

import (
	"context"
	"math/rand/v2"
	"time"
)

// Writers of one session that meet again and again get out of each other's
// way. The first conflict costs nothing: it brings the newest bytes along.
const (
	firstPause = 500 * time.Microsecond
	lastPause  = 16 * time.Millisecond
)

// pause waits before the attempt that follows the given number of conflicts:
// at random, up to a limit that doubles. It returns the error of ctx if that
// ends before.
func pause(ctx context.Context, conflicts int) error {
	if conflicts > 1 {
		limit := min(firstPause<<min(conflicts-2, 10), lastPause)
		sleep(ctx, rand.N(limit))
	}
	return storeError(ctx.Err())
}
