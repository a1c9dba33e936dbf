package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// turnSeat is one of the four places of TestPairTurns.
type turnSeat struct {
	pair, path string
	who        *person
	at         int // replica that it is connected to
	conn       *websocket.Conn
}

// turns is what the four have been told so far.
type turns struct {
	t        *testing.T
	replicas [2]*replica
	seats    []*turnSeat
	lives    map[string]string       // by pair: its unique ID
	seen     map[string]map[int]bool // by pair: indices
	last     map[string]int          // by pair: the newest index
	again    int                     // messages sent again because their answer was lost
}

// Four connections over two replicas take turns; one replica is killed twice while answers are under way, and every side
// drops and returns three times: alone, and both of a pair at once. The unique ID stays, no index comes twice.
func TestPairTurns(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "limits: {frames_per_second: 0}\n")
	x := &turns{
		t: t, replicas: [2]*replica{s.a, s.b},
		lives: map[string]string{}, seen: map[string]map[int]bool{}, last: map[string]int{},
	}
	// In both orders: the first that comes is a left side once, and once a right one.
	for i, path := range []string{"/left/p", "/right/p", "/right/q", "/left/q"} {
		x.seats = append(x.seats, &turnSeat{pair: path[len(path)-1:], path: path, who: s.visitor(fmt.Sprint("visitor", i)), at: i % 2})
	}
	for _, seat := range x.seats {
		x.open(seat)
	}
	for turn := range pairSizes.turns {
		seat := x.seats[turn%len(x.seats)]
		if turn%(pairSizes.turns/3) == pairSizes.turns/4 && turn < pairSizes.turns*2/3 { // twice
			// The kill and the message race: it is answered, or not, or its answer is lost.
			seat = x.seats[1]
			killed := make(chan struct{})
			go func() {
				defer close(killed)
				x.replicas[1].signal(9)
				<-x.replicas[1].done
			}()
			x.take(seat, turn)
			<-killed
			x.take(seat, turn)
			x.replicas[1] = s.start()
			continue
		}
		if every := pairSizes.turns / 12; turn%every == every/2 { // three times each of the four
			n := turn / every
			x.drop(x.seats[n%4])
			if n >= 8 {
				x.drop(x.seats[n%4^1]) // its counterpart, too
				x.open(x.seats[n%4^1])
			}
			x.open(x.seats[n%4])
		}
		x.take(seat, turn)
	}
	for pair, seen := range x.seen {
		t.Logf("pair %s: %d indices up to %d", pair, len(seen), x.last[pair])
	}
	t.Logf("%d messages were sent again", x.again)
	if len(x.lives) != 2 || x.lives["p"] == x.lives["q"] {
		t.Errorf("unique IDs: %v", x.lives)
	}
}

// drop lets go of a side, without a word.
func (x *turns) drop(seat *turnSeat) {
	_ = seat.conn.NetConn().Close()
	seat.at = 1 - seat.at
}

// open takes the side on the seat's replica, or on the other when that one is dead.
func (x *turns) open(seat *turnSeat) {
	x.t.Helper()
	conn, resp, err := seat.who.trySide(x.replicas[seat.at], seat.path)
	if err != nil && resp == nil {
		seat.at = 1 - seat.at
		conn, resp, err = seat.who.trySide(x.replicas[seat.at], seat.path)
	}
	if err != nil {
		x.t.Fatalf("%s: %v %v", seat.path, err, resp) // the same session has it at once
	}
	seat.conn = conn
	x.t.Cleanup(func() { _ = conn.Close() })
}

// take is one turn: the message is sent until it is answered.
func (x *turns) take(seat *turnSeat, turn int) {
	x.t.Helper()
	message := fmt.Sprint("turn ", turn)
	for {
		answer, err := seat.ask(message)
		if err != nil {
			x.again++
			x.open(seat)
			continue
		}
		x.note(seat, answer, message)
		return
	}
}

func (seat *turnSeat) ask(message string) (string, error) {
	if err := seat.conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		return "", err
	}
	_ = seat.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, data, err := seat.conn.ReadMessage()
	return string(data), err
}

func (x *turns) note(seat *turnSeat, raw, message string) {
	x.t.Helper()
	got, err := readEcho(raw)
	if err != nil || got.message != message {
		x.t.Fatalf("%q (%v), want %q", raw, err, message)
	}
	if x.lives[seat.pair] == "" {
		x.lives[seat.pair], x.seen[seat.pair], x.last[seat.pair] = got.unique, map[int]bool{}, -1
	}
	if got.unique != x.lives[seat.pair] {
		x.t.Fatalf("%s: unique ID %s, before %s", seat.path, got.unique, x.lives[seat.pair])
	}
	if x.seen[seat.pair][got.index] || got.index <= x.last[seat.pair] {
		x.t.Fatalf("%s: index %d after %d", seat.path, got.index, x.last[seat.pair])
	}
	x.seen[seat.pair][got.index], x.last[seat.pair] = true, got.index
}

// Two clients come for one side at the same time, each to a replica of its own: exactly one gets it.
func TestPairRaces(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "limits: {frames_per_second: 0}\n")
	people := []*person{s.visitor("ada"), s.visitor("bob")}
	wins := [2]int{}
	for race := range pairSizes.races {
		path := []string{"/left/", "/right/"}[rand.IntN(2)] + fmt.Sprint("race", race)
		var conns [2]*websocket.Conn
		var status [2]int
		var both sync.WaitGroup
		for i, r := range []*replica{s.a, s.b} {
			both.Go(func() {
				conn, resp, err := people[i].trySide(r, path)
				if conns[i] = conn; resp != nil {
					status[i] = resp.StatusCode
				} else {
					t.Errorf("race %d: %v", race, err)
				}
			})
		}
		both.Wait()
		for i, c := range conns {
			if c != nil {
				wins[i]++
				_ = c.Close()
			}
		}
		if won := [2]int{http.StatusSwitchingProtocols, http.StatusConflict}; status != won && status != [2]int{won[1], won[0]} {
			t.Fatalf("race %d: %v", race, status)
		}
	}
	t.Logf("%d races: %d won on one replica, %d on the other", pairSizes.races, wins[0], wins[1])
}

// A live replica's side is nobody else's however long it waits; a killed one's can be had within 15 s, by the next who
// asks, and its counterpart hears that it has gone.
func TestPairTakeOver(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "")
	ada, eve := s.visitor("ada"), s.visitor("eve")
	alone, _ := ada.dial(s.b.url, "/left/alone", nil)
	left, right := ada.jsonSide(s.b, "/left/p"), ada.jsonSide(s.a, "/right/p")
	unique := left.want("paired").fields["unique_id"]
	right.want("paired")
	for until := time.Now().Add(time.Duration(pairSizes.refusedFor) * time.Second); time.Now().Before(until); {
		eve.refused(s.a, "/left/p", http.StatusConflict)
		eve.refused(s.a, "/left/alone", http.StatusConflict)
	}
	left.send(map[string]any{"type": "message", "data": 1})
	left.want("message") // it lives
	s.b.kill()
	died := time.Now()
	if code := (<-alone.closed).Code; code != websocket.CloseAbnormalClosure {
		t.Fatalf("closed with %d", code)
	}
	var taken *socket
	eventually(t, 15*time.Second, func() error {
		side, resp := eve.dial(s.a.url, "/left/alone", nil)
		if side == nil && resp.StatusCode != http.StatusConflict {
			t.Fatal(resp.Status)
		}
		if side == nil {
			return fmt.Errorf("%s", resp.Status)
		}
		taken = side
		return nil
	})
	t.Logf("a side that waited: had %v after its replica was killed", time.Since(died).Round(time.Millisecond))
	right.want("counterpart_left")
	t.Logf("the counterpart was told after %v", time.Since(died).Round(time.Millisecond))
	again := eve.jsonSide(s.a, "/left/p")
	if got := again.want("paired").fields["unique_id"]; got != unique {
		t.Errorf("unique ID %v, before %v", got, unique)
	}
	if took := time.Since(died); took > 15*time.Second {
		t.Errorf("taken over after %v", took)
	}
	other, _ := ada.dial(s.a.url, "/right/alone", nil)
	other.sendRaw(websocket.TextMessage, []byte("x"))
	other.plain()
	taken.sendRaw(websocket.TextMessage, []byte("y"))
	taken.plain()
}
