package redisconn

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A pipeline that is longer than what the server reads at a time gets its
// answers, which are long, too.
func TestEmbeddedPipeline(t *testing.T) {
	conn, err := Open(Config{URL: "embedded:"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rdb := conn.Client()
	long := strings.Repeat("x", 3000)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			cmds, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
				for n := range 200 {
					key := fmt.Sprint("key:", i, ":", n)
					p.Set(t.Context(), key, long, 0)
					p.Get(t.Context(), key)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
				return
			}
			for _, cmd := range cmds {
				if get, ok := cmd.(*redis.StringCmd); ok && get.Val() != long {
					t.Errorf("%v brought %d bytes", get.Args(), len(get.Val()))
				}
			}
		})
	}
	all.Wait()
}

// A connection within the process keeps the order, ends its reads on time, and gives what waits to the reader before the
// end; who does not read is cut off.
func TestMemoryConn(t *testing.T) {
	a, b := memoryConns()
	for i := range 1000 {
		if _, err := fmt.Fprintf(a, "%03d", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3000)
	if _, err := io.ReadFull(b, got); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if string(got[3*i:3*i+3]) != fmt.Sprintf("%03d", i) {
			t.Fatalf("%q at %d", got[3*i:3*i+3], i)
		}
	}
	if _, err := b.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("late: %v", err)
	}
	_ = b.SetReadDeadline(time.Time{})
	go func() {
		_, _ = a.Write([]byte("last"))
		_ = a.Close()
	}()
	if rest, err := io.ReadAll(b); err != nil || string(rest) != "last" {
		t.Errorf("%q, %v", rest, err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after the end: %v", err)
	}

	a, b = memoryConns()
	var err error
	for n := 0; err == nil && n <= heldBytes; n += 1 << 20 {
		_, err = a.Write(make([]byte, 1<<20))
	}
	if err == nil {
		t.Error("holds any number of bytes")
	}
	if _, err := b.Read(got); err != io.EOF {
		t.Errorf("cut off: %v", err)
	}
}
