package redistest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// replicating makes a master send something each second, whether or not there
// is anything to send, and the first copy without delay.
var replicating = []string{"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}

// awaitReplicas returns when the replicas of every running master have
// confirmed all that it wrote before the call. The status of their links says
// less: a link is up before anything flows over it.
func awaitReplicas(t testing.TB, servers []*Server) {
	t.Helper()
	for _, s := range servers {
		if s.proc == nil {
			continue
		}
		rdb := s.Client(t)
		if replication(t, rdb)["role"] != "master" {
			continue
		}
		wrote := offset(replication(t, rdb)["master_repl_offset"])
		await(t, s.Addr()+": replicas have it all", func() bool {
			info := replication(t, rdb)
			for name, value := range info {
				if _, isReplica := strings.CutPrefix(name, "slave"); !isReplica || !strings.HasPrefix(value, "ip=") {
					continue
				}
				_, confirmed, _ := strings.Cut(value, ",offset=")
				confirmed, _, _ = strings.Cut(confirmed, ",")
				if n := offset(confirmed); n == 0 || n < wrote {
					return false
				}
			}
			return true
		})
	}
}

// replication is what the server says of it; nothing when it does not answer.
func replication(t testing.TB, rdb *redis.Client) map[string]string {
	t.Helper()
	text, _ := rdb.Info(t.Context(), "replication").Result()
	info := map[string]string{}
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			info[name] = value
		}
	}
	return info
}

func offset(s string) int {
	n, _ := strconv.Atoi(s) // zero: nothing yet
	return n
}
