package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// frameSeeds are what frames are made of that no client should send.
var frameSeeds = []string{
	`{"type":"authenticate","ticket":"AAAA"}`, `{"type":"join_document","since":{"epoch":"x","seq":3}}`, `{"type":"leave_document"}`,
	`{"type":"operation","id":"a1","payload":{"insert":"text","at":[1,2,{"x":null}]}}`, `{"type":"presence","state":{"cursor":7}}`,
	`{"type":"sync_request","since":{"epoch":"x","seq":18446744073709551615}}`, `{"type":"snapshot","seq":1,"payload":{}}`,
	`{"type":"session_get","keys":["chat.name","tandem.auth"]}`, `{"type":"session_set","set":{"chat.name":"\ud800"},"delete":["chat.x"]}`,
	`{"type":"ping","id":"1"}`, `{"a":[[[[[[[[[[{"b":{}}]]]]]]]]]]}`, "\xff\xfe\x00", `{}`, ``,
}

// mutated is a frame with some faults.
func mutated(rng *rand.Rand) (kind int, frame []byte) {
	frame = []byte(frameSeeds[rng.IntN(len(frameSeeds))])
	for range rng.IntN(4) {
		other := frameSeeds[rng.IntN(len(frameSeeds))]
		at := rng.IntN(len(frame) + 1)
		switch rng.IntN(5) {
		case 0:
			frame = frame[:at]
		case 1:
			frame = append(frame[:at:at], other[rng.IntN(len(other)+1):]...)
		case 2:
			frame = append(frame[:at:at], append(bytes.Repeat([]byte{`[{"\,:0é`[rng.IntN(8)]}, rng.IntN(300)), frame[at:]...)...)
		case 3:
			if at < len(frame) {
				frame[at] ^= 1 << rng.IntN(8)
			}
		case 4:
			if rng.IntN(1000) == 0 {
				frame = append(frame, bytes.Repeat([]byte(" "), 65<<10)...) // too large
			}
		}
	}
	kind = websocket.TextMessage
	if rng.IntN(50) == 0 {
		kind = websocket.BinaryMessage
	}
	return kind, frame
}

// Very many frames that no client should send: the replica lives, serves others meanwhile, and nothing of it all stays.
// TANDEM_FRAMES is how many.
func TestMutatedFrames(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL(), more: busy})
	ada := newPerson(t)
	ada.register(r.url, "ada")
	for range 3 { // what is opened once for good
		s := ada.open(r.url, "frames")
		s.operation(strconv.Itoa(rand.Int()), 1)
		s.conn.Close()
	}
	base := r.goroutines()
	witness := ada.open(r.url, "calm")

	frames := documentSizes.frames
	if s := os.Getenv("TANDEM_FRAMES"); s != "" {
		var err error
		if frames, err = strconv.Atoi(s); err != nil {
			t.Fatalf("TANDEM_FRAMES: %v", err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	began := time.Now()
	var g errgroup.Group
	const senders = 8
	for i := range senders {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		g.Go(func() error {
			for left := frames / senders; left > 0; {
				n, err := pester(ada, r.url, rng, left)
				if err != nil {
					return err
				}
				left -= n
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d frames in %v", frames, time.Since(began).Round(time.Millisecond))
	witness.operation("afterwards", 1)
	witness.want("operation")
	witness.conn.Close()
	eventually(t, time.Minute, func() error {
		if n := r.goroutines(); n > base {
			return fmt.Errorf("%d goroutines, %d before", n, base)
		}
		return nil
	})
	t.Logf("%d goroutines before, %d after", base, r.goroutines())
}

// pester sends mutated frames over one connection until it is closed or so many are sent, and returns their number.
func pester(who *person, base string, rng *rand.Rand, most int) (sent int, err error) {
	header := http.Header{}
	for _, c := range who.cookies(base) {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	conn, _, err := websocket.DefaultDialer.Dial("ws"+base[len("http"):]+fmt.Sprint("/ws/documents/frames", rng.IntN(4)), header)
	if err != nil {
		return 0, fmt.Errorf("the replica takes no more connections: %w", err)
	}
	defer conn.Close()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		for {
			if _, b, err := conn.ReadMessage(); err != nil || bytes.Contains(b, []byte(`"pong","re":"the last"`)) {
				return
			}
		}
	}()
	defer func() { // what was sent has been read by then
		_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping","id":"the last"}`))
		<-reading
	}()
	for ; sent < most; sent++ {
		kind, frame := mutated(rng)
		if sent%40 == 0 { // a hundred bad ones in a row end it
			kind, frame = websocket.TextMessage, []byte(`{"type":"authenticate"}`)
		}
		if sent%40 == 1 {
			kind, frame = websocket.TextMessage, []byte(`{"type":"join_document"}`)
		}
		if conn.WriteMessage(kind, frame) != nil {
			return sent + 1, nil // closed, as it may be
		}
	}
	return sent, nil
}

// goroutines is how many the replica runs.
func (r *replica) goroutines() int {
	r.t.Helper()
	resp, err := http.Get(r.admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var n int
	if _, err := fmt.Fscanf(resp.Body, "goroutine profile: total %d", &n); err != nil {
		r.t.Fatal(err)
	}
	return n
}
