package wsredis

// All that pairs have in Redis, besides the leases that they share with
// presence.
//
//	key                     type  TTL                        written by
//	tandem:pair:{pair:ID}   hash  2 minutes while a side is  pair_claim, pair_release,
//	                              held, else Grace           pair_post, pair_take
//
// The hash holds the messages under way too: when it is lost, all of the pair
// is. Channel tandem:pairs:{<incarnation>} has the hints for one replica: a
// connection's ID, with a + when a batch was posted for it; empty is the
// replica talking to itself to hear that its subscription delivers.
const (
	pairPrefix        = "tandem:pair:{pair:"
	pairChannelPrefix = "tandem:pairs:{" // written in pair_common.lua too

	pairLifeSeconds = 120 // the tick prolongs it at half of it
)

func pairKey(pair string) string            { return pairPrefix + pair + "}" }
func pairChannel(incarnation string) string { return pairChannelPrefix + incarnation + "}" }
