package accounts

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/redis/go-redis/v9"
)

// The keys of this package. All accounts share one slot, so that one script
// can see that there is none yet.
//
//	key                                   type  what                                      TTL     writer
//	tandem:account:{all}                  set   lower-case names of all accounts          none    add.lua, remove.lua
//	tandem:account:{all}:<name>           hash  id, name, created, password (PHC string)  none    add.lua, remove.lua
//	tandem:throttle:{account:<name>}      zset  random token → time of a failure in ms    window  fail.lua
//	tandem:throttle:{address:<address>}   zset  the same for an IPv4 address or IPv6 /64  window  fail.lua
const (
	indexKey       = "tandem:account:{all}"
	accountPrefix  = "tandem:account:{all}:"
	throttlePrefix = "tandem:throttle:{"
)

// What add.lua may be asked for.
const (
	anyAccount   = "any"
	firstAccount = "first"
)

//go:embed add.lua
var addSource string

//go:embed remove.lua
var removeSource string

//go:embed fail.lua
var failSource string

//go:embed throttle.lua
var throttleSource string

var (
	addScript      = redis.NewScript(addSource)
	removeScript   = redis.NewScript(removeSource)
	failScript     = redis.NewScript(failSource)
	throttleScript = redis.NewScript(throttleSource)
)

// accountKey needs a valid name.
func accountKey(name string) string { return accountPrefix + strings.ToLower(name) }

// throttleKeys are the keys an attempt counts under. What is no valid name
// has no account that needs protection; what is no IP address is hashed, so
// that a key is never longer than it should be.
func (a *Accounts) throttleKeys(name, address string) []string {
	if a.cfg.Failures < 0 {
		return nil
	}
	var keys []string
	if validName(name) {
		keys = append(keys, throttlePrefix+"account:"+strings.ToLower(name)+"}")
	}
	if address != "" {
		keys = append(keys, throttlePrefix+"address:"+addressGroup(address)+"}")
	}
	return keys
}

// addressGroup is what one client is assumed to own: an IPv4 address, or the
// /64 of an IPv6 address.
func addressGroup(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		sum := sha256.Sum256([]byte(address))
		return hex.EncodeToString(sum[:16])
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, _ := ip.Prefix(64) // only a bad length is an error
	return prefix.String()
}
