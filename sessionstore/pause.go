package sessionstore

import (
	"context"
	"math/rand/v2"
	"time"
)

// Writers of one session that meet again and again get out of each other's
// way. A conflict brings the newest bytes along, which are worth an attempt at
// once: after a pause they are old, where somebody writes without a break.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 32 * time.Millisecond
)

// pause waits before the attempt that follows the given number of conflicts,
// if that is even: at random, up to a limit that doubles. It returns the error
// of ctx if that ends before.
func pause(ctx context.Context, conflicts int) error {
	if conflicts%2 == 0 {
		limit := min(firstPause<<min(conflicts/2-1, 10), lastPause)
		sleep(ctx, rand.N(limit))
	}
	return storeError(ctx.Err())
}
