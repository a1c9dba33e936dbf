package ws

import (
	"sync"
	"time"
)

// crew does short jobs on goroutines that have done some before: their stacks
// have grown to what a job needs, which for a new one is most of the work where
// a job comes with each frame. Who is idle stays for the next job, up to a
// number and for a while; what waits for a client or for Redis holds up nobody else, since a
// job that finds nobody idle gets a goroutine of its own.
type crew struct {
	jobs chan job      // who is idle waits here
	idle chan struct{} // one for each of them; its capacity is their number
	over chan struct{} // closed: nobody waits any more
	once sync.Once

	working sync.WaitGroup
}

// How many goroutines wait for jobs, and for how long.
const (
	maxIdle = 256
	linger  = 5 * time.Second
)

func newCrew() *crew {
	return &crew{jobs: make(chan job), idle: make(chan struct{}, maxIdle), over: make(chan struct{})}
}

// job is what a connection needs done.
type job struct {
	what func(*conn)
	of   *conn
}

// do has a job done. It does not wait.
func (w *crew) do(what func(*conn), of *conn) {
	j := job{what, of}
	select {
	case w.jobs <- j:
	default:
		w.working.Go(func() { w.work(j) })
	}
}

func (w *crew) work(j job) {
	patience := time.NewTimer(linger)
	defer patience.Stop()
	for {
		j.what(j.of)
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		patience.Reset(linger)
		select {
		case j = <-w.jobs:
			<-w.idle
		case <-patience.C:
			<-w.idle
			return
		case <-w.over:
			return
		}
	}
}

// close ends those who are idle, and returns when the last job is done. There
// must be no more. It may be called again.
func (w *crew) close() {
	w.once.Do(func() { close(w.over) })
	w.working.Wait()
}
