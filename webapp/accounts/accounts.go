// Package accounts owns the local users: their names and password hashes in
// Redis, and the throttle that slows guessing down over all replicas.
package accounts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Different answers that callers tell apart with errors.Is.
var (
	// ErrBadCredentials: no such account, or not its password. Which of the
	// two is never told.
	ErrBadCredentials = errors.New("wrong name or password")

	// ErrExists: an account of that name exists, upper and lower case alike.
	ErrExists = errors.New("an account of this name exists")

	// ErrNotFirst: AddFirst found that there is an account already.
	ErrNotFirst = errors.New("the first account exists")

	// ErrNotFound: there is no account of that name.
	ErrNotFound = errors.New("no account of this name")

	// ErrBadName and ErrBadPassword: the rules that a new account breaks.
	ErrBadName     = errors.New("a name has 1 to 64 characters: letters, digits and . _ - @")
	ErrBadPassword = errors.New("a password has 8 to 1024 bytes")

	// ErrBusy: too many passwords are being hashed at once; try again.
	ErrBusy = errors.New("too many logins at once")

	// ErrUnavailable: Redis did not answer as it should. The cause is
	// wrapped too.
	ErrUnavailable = errors.New("account store unavailable")
)

// ThrottledError says that an account or an address had too many failures:
// no password is looked at before RetryAfter is over.
type ThrottledError struct{ RetryAfter time.Duration }

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many failed logins, try again in %s", e.RetryAfter.Round(time.Second))
}

// Config of Accounts. The zero value is right for production.
type Config struct {
	// Failures per account, and per address, that are allowed in Window.
	// 0 = 10; negative = no throttle.
	Failures int

	// Window is how long a failure counts. 0 = one minute; negative is an error.
	Window time.Duration

	// Hash is the cost of new passwords. Zero = DefaultHash. Stored
	// passwords keep the cost they were made with.
	Hash Params

	// Hashing is how many passwords are hashed at once, each with Hash.Memory
	// KiB. 0 = 2; negative is an error. Up to 64 times as many callers wait,
	// more get ErrBusy.
	Hashing int
}

// Accounts are the local users. Its methods are safe for concurrent use and
// honour ctx's deadline.
type Accounts struct {
	rdb    redis.UniversalClient // fixed after construction
	cfg    Config
	hashes hasher
}

// User is one account, without its secret.
type User struct {
	ID      string    // random, never changes and is never given twice
	Name    string    // as it was written at registration
	Created time.Time // second precision, UTC
}

// New checks cfg. It does no I/O.
func New(rdb redis.UniversalClient, cfg Config) (*Accounts, error) {
	if rdb == nil {
		return nil, errors.New("accounts: no Redis client")
	}
	if cfg.Window < 0 || cfg.Hashing < 0 {
		return nil, errors.New("accounts: Window and Hashing must not be negative")
	}
	if cfg.Failures == 0 {
		cfg.Failures = 10
	}
	if cfg.Window == 0 {
		cfg.Window = time.Minute
	}
	if cfg.Hash == (Params{}) {
		cfg.Hash = DefaultHash
	}
	if err := cfg.Hash.check(); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	if cfg.Hashing == 0 {
		cfg.Hashing = 2
	}
	return &Accounts{rdb: rdb, cfg: cfg, hashes: newHasher(cfg.Hash, cfg.Hashing)}, nil
}

// Add makes an account: ErrBadName, ErrBadPassword, ErrExists, ErrBusy or
// ErrUnavailable. Two concurrent calls with one name have one winner.
func (a *Accounts) Add(ctx context.Context, name, password string) (User, error) {
	return a.add(ctx, name, password, anyAccount)
}

// AddFirst is Add when there is no account at all, else ErrNotFirst. Of all
// concurrent calls on all replicas exactly one wins.
func (a *Accounts) AddFirst(ctx context.Context, name, password string) (User, error) {
	// Hashing is dear: do not do it for everybody who comes too late.
	if found, err := a.Any(ctx); err != nil {
		return User{}, err
	} else if found {
		return User{}, ErrNotFirst
	}
	return a.add(ctx, name, password, firstAccount)
}

func (a *Accounts) add(ctx context.Context, name, password string, which string) (User, error) {
	if !validName(name) {
		return User{}, ErrBadName
	}
	if !validPassword(password) {
		return User{}, ErrBadPassword
	}
	var phc string
	err := a.hashes.do(ctx, func() error { phc = a.hashes.hash(password); return nil })
	if err != nil {
		return User{}, err
	}
	u := User{ID: strings.ToLower(rand.Text()), Name: name, Created: time.Now().UTC().Truncate(time.Second)}
	answer, err := addScript.Run(ctx, a.rdb,
		[]string{indexKey, accountKey(name)},
		strings.ToLower(name), which, u.ID, u.Name, u.Created.Format(time.RFC3339), phc).Text()
	switch {
	case err != nil:
		return User{}, unavailable(err)
	case answer == "exists":
		return User{}, ErrExists
	case answer == "not first":
		return User{}, ErrNotFirst
	}
	return u, nil
}

// Verify returns the account that name and password belong to. address is
// the client's, without port; empty is not throttled. The errors are
// ErrBadCredentials, *ThrottledError (for the right password too), ErrBusy
// and ErrUnavailable. A wrong password and an unknown name take the same work.
// With ErrBadCredentials the account is the one whose password was wrong, if
// there is one: for the log, and never for the client.
func (a *Accounts) Verify(ctx context.Context, name, password, address string) (User, error) {
	keys := a.throttleKeys(name, address)
	if err := a.throttled(ctx, keys); err != nil {
		return User{}, err
	}
	var u User
	err := a.hashes.do(ctx, func() error {
		// Once more, as the turn may have been long in coming: what is
		// guessed beyond the limit is bounded by the hashes under way.
		if err := a.throttled(ctx, keys); err != nil {
			return err
		}
		var err error
		if u, err = a.verify(ctx, name, password); errors.Is(err, ErrBadCredentials) {
			return errors.Join(err, a.failed(ctx, keys))
		}
		return err
	})
	switch {
	case errors.Is(err, ErrUnavailable): // a failure that cannot be counted is not told
		return User{}, err
	case errors.Is(err, ErrBadCredentials):
		return u, ErrBadCredentials
	}
	return u, err
}

func (a *Accounts) verify(ctx context.Context, name, password string) (User, error) {
	var u User
	var phc string
	if validName(name) {
		var err error
		if u, phc, err = a.read(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
			return User{}, err
		}
	}
	if !a.hashes.matches(phc, password) {
		return u, ErrBadCredentials
	}
	return u, nil
}

// read returns the account and its password hash.
func (a *Accounts) read(ctx context.Context, name string) (User, string, error) {
	h, err := a.rdb.HGetAll(ctx, accountKey(name)).Result()
	if err != nil {
		return User{}, "", unavailable(err)
	}
	if len(h) == 0 {
		return User{}, "", ErrNotFound
	}
	created, _ := time.Parse(time.RFC3339, h["created"])
	return User{ID: h["id"], Name: h["name"], Created: created}, h["password"], nil
}

// Has reports whether there still is this account, and not another one of its
// name.
func (a *Accounts) Has(ctx context.Context, u User) (bool, error) {
	id, err := a.rdb.HGet(ctx, accountKey(u.Name), "id").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, unavailable(err)
	}
	return id == u.ID, nil
}

// List returns all accounts by name. It is meant for administration: one
// round trip for the names and one for all accounts.
func (a *Accounts) List(ctx context.Context) ([]User, error) {
	names, err := a.rdb.SMembers(ctx, indexKey).Result()
	if err != nil {
		return nil, unavailable(err)
	}
	slices.Sort(names)
	reads := make([]*redis.SliceCmd, len(names))
	_, err = a.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, name := range names {
			reads[i] = p.HMGet(ctx, accountKey(name), "id", "name", "created")
		}
		return nil
	})
	if err != nil {
		return nil, unavailable(err)
	}
	users := make([]User, 0, len(names))
	for _, read := range reads {
		var h struct {
			ID      string    `redis:"id"`
			Name    string    `redis:"name"`
			Created time.Time `redis:"created"`
		}
		if err := read.Scan(&h); err != nil {
			return nil, unavailable(err)
		}
		if h.ID != "" { // removed between the two round trips otherwise
			users = append(users, User(h))
		}
	}
	return users, nil
}

// Remove deletes an account, upper and lower case alike, and returns what it
// was; ErrNotFound or ErrUnavailable. Its sessions are the caller's to end.
func (a *Accounts) Remove(ctx context.Context, name string) (User, error) {
	if !validName(name) {
		return User{}, ErrNotFound
	}
	u, _, err := a.read(ctx, name)
	if err != nil {
		return User{}, err
	}
	err = removeScript.Run(ctx, a.rdb, []string{indexKey, accountKey(name)}, strings.ToLower(name), u.ID).Err()
	if err != nil {
		return User{}, unavailable(err)
	}
	return u, nil
}

// Any reports whether there is an account at all.
func (a *Accounts) Any(ctx context.Context) (bool, error) {
	n, err := a.rdb.Exists(ctx, indexKey).Result()
	if err != nil {
		return false, unavailable(err)
	}
	return n > 0, nil
}

// unavailable keeps the cause for errors.Is, under the name that callers know.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

func validName(name string) bool {
	if len(name) < 1 || len(name) > 64 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("._-@", c) >= 0:
		default:
			return false
		}
	}
	return true
}

func validPassword(password string) bool { return len(password) >= 8 && len(password) <= 1024 }
