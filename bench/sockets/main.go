// Command sockets measures document sockets through the running binary: what an idle one costs, how fast they join, and
// how many deliveries a second one replica makes. It starts a redis-server and a replica of its own, for as long as it
// runs. bench/README.md says how to call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// plan is what to measure.
type plan struct {
	idle             int // seconds of rest before memory is looked at
	binary           string
	floor            string // what is measured instead of the binary: see floors
	embedded         bool   // the replica's own Redis
	connections      int
	joining          int    // sockets at a time that are being opened
	room             int    // members of a document
	size             int    // bytes of an operation's payload
	rates            []int  // operations a second, one after the other
	seconds          int    // at each rate
	heap, cpu, joins string // files for profiles, empty: none
}

func main() {
	var p plan
	var rates string
	flag.StringVar(&p.binary, "tandem", "bin/tandem", "the binary to measure")
	flag.StringVar(&p.floor, "floor", "", "measure a bare gorilla server (./floor) instead: plain, queued (what waits for a socket goes out in one write), redis (with a session and presence in Redis, and pub/sub), redis-queued")
	flag.BoolVar(&p.embedded, "embedded", false, "measure with the embedded Redis; then all sockets are of one session")
	flag.IntVar(&p.connections, "connections", 2000, "sockets, each of a session of its own")
	flag.IntVar(&p.idle, "idle", 30, "seconds of rest before memory is looked at; a heartbeat is 25")
	flag.IntVar(&p.joining, "joining", 256, "sockets at a time that are being opened")
	flag.IntVar(&p.room, "room", 100, "members of a document")
	flag.IntVar(&p.size, "size", 128, "bytes of an operation's payload")
	flag.StringVar(&rates, "rates", "200,1000,5000", "operations a second over all documents, one after the other; empty: none")
	flag.IntVar(&p.seconds, "seconds", 5, "how long each rate lasts")
	flag.StringVar(&p.heap, "heap", "", "file for a heap profile of the replica with its idle sockets")
	flag.StringVar(&p.joins, "joins", "", "file for a profile of the replica's processor time while sockets join")
	flag.StringVar(&p.cpu, "cpu", "", "file for a profile of the replica's processor time at the last rate")
	flag.Parse()
	for r := range strings.SplitSeq(rates, ",") {
		if r == "" {
			continue
		}
		n, err := strconv.Atoi(r)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "sockets: -rates %q: allowed are whole numbers from 1, separated by commas\n", rates)
			os.Exit(2)
		}
		p.rates = append(p.rates, n)
	}
	if _, ok := floors[p.floor]; !ok && p.floor != "" {
		fmt.Fprintf(os.Stderr, "sockets: -floor %q: allowed are plain, queued, redis, redis-queued\n", p.floor)
		os.Exit(2)
	}
	if p.floor != "" && (p.embedded || p.heap+p.cpu+p.joins != "") {
		fmt.Fprintln(os.Stderr, "sockets: -embedded, -heap, -cpu and -joins are of Tandem, no -floor has them")
		os.Exit(2)
	}
	if p.connections < 1 || p.joining < 1 || p.room < 1 || p.size < 32 || p.size > 32<<10 || p.seconds < 1 {
		fmt.Fprintln(os.Stderr, "sockets: -connections, -joining, -room and -seconds are at least 1, -size from 32 to 32768")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := p.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sockets:", err)
		os.Exit(1)
	}
}

func (p plan) run(ctx context.Context) error {
	s, err := startServer(ctx, p)
	if err != nil {
		return err
	}
	defer s.stop()
	ids, err := s.login(ctx, p)
	if err != nil {
		return err
	}
	warm, err := connectAll(ctx, s, p, ids[:min(200, len(ids))]) // pools and code are paid for before it counts
	if err != nil {
		return err
	}
	warm.hangUp()
	if err := s.settle(ctx, 3); err != nil {
		return err
	}
	before, err := s.resident(p)
	if err != nil {
		return err
	}
	began := time.Now()
	used, usedRedis, err := s.bothCPU()
	if err != nil {
		return err
	}
	var profile errgroup.Group
	if p.joins != "" {
		profile.Go(func() error { return s.save(p.joins, "/debug/pprof/profile?seconds=2") })
	}
	clients, err := connectAll(ctx, s, p, ids)
	took := time.Since(began)
	now, nowRedis, cpuErr := s.bothCPU()
	if err := errors.Join(err, cpuErr, profile.Wait()); err != nil {
		return err
	}
	defer clients.hangUp()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(len(ids)) }
	fmt.Printf("joined: %d sockets in documents of %d, %.0f a second; µs of processor each: %.0f, and %.0f of Redis\n",
		len(ids), p.room, float64(len(ids))/took.Seconds(), each(now-used), each(nowRedis-usedRedis))
	if p.embedded {
		fmt.Println("all of one session, which is read and watched once: not to be compared with sockets of a session each")
	}
	if err := s.settle(ctx, p.idle); err != nil {
		return err
	}
	after, err := s.resident(p)
	if err != nil {
		return err
	}
	fmt.Printf("idle: %.1f kB resident a socket (%.1f MB in all); %s\n",
		float64(after-before)/1e3/float64(len(ids)), float64(after)/1e6, s.memory(p))
	if p.heap != "" {
		if err := s.save(p.heap, "/debug/pprof/heap?gc=1"); err != nil {
			return err
		}
	}
	for i, rate := range p.rates {
		var g errgroup.Group
		if p.cpu != "" && i == len(p.rates)-1 {
			g.Go(func() error { return s.save(p.cpu, "/debug/pprof/profile?seconds="+strconv.Itoa(p.seconds)) })
		}
		if err := errors.Join(p.deliver(ctx, s, clients, rate), g.Wait()); err != nil {
			return err
		}
	}
	return nil
}
