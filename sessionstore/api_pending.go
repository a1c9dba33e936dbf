package sessionstore

// Temporary: the exported API and the unexported helpers that store.go and
// watcher.go build on. Replaced file by file; the signatures stay.

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/gorilla/sessions"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

type Serializer interface {
	Serialize(*sessions.Session) ([]byte, error)
	Deserialize([]byte, *sessions.Session) error
}

func JSON() Serializer { panic("pending") }
func Gob() Serializer  { panic("pending") }

type Config struct {
	Serializer      Serializer
	KeyPrefix       string
	IdleTimeout     time.Duration
	AbsoluteTimeout time.Duration
	TouchEvery      time.Duration
	Grace           time.Duration
	MaxBytes        int
	Logger          *slog.Logger
	Metrics         prometheus.Registerer
}

type Factory struct {
	rdb redis.UniversalClient
	cfg Config // defaults filled in
	log *slog.Logger
}

func New(rdb redis.UniversalClient, cfg Config) (*Factory, error) { panic("pending") }

func (f *Factory) Load(ctx context.Context, id string) (*Session, error) { panic("pending") }

// LoadHandle: follows every rotation, does not count as activity.
func (f *Factory) LoadHandle(ctx context.Context, handle string) (*Session, error) { panic("pending") }
func (f *Factory) New() *Session                                                   { panic("pending") }
func (f *Factory) Update(ctx context.Context, id string, fn func(*Session) error) (*Session, error) {
	panic("pending")
}

// Touch is batched: for the watcher. Sessions that ended or rotated are skipped.
func (f *Factory) Touch(ctx context.Context, snaps ...*Snapshot) error { panic("pending") }
func (f *Factory) Login(ctx context.Context, current *Session, l Login) (*Session, error) {
	panic("pending")
}
func (f *Factory) End(ctx context.Context, id string, reason Reason) error { panic("pending") }
func (f *Factory) EndHandle(ctx context.Context, handle string, reason Reason) error {
	panic("pending")
}
func (f *Factory) EndUser(ctx context.Context, userID string, reason Reason, exceptHandle string) (int, error) {
	panic("pending")
}
func (f *Factory) List(ctx context.Context, userID string) ([]Info, error)    { panic("pending") }
func (f *Factory) Info(ctx context.Context, handle string) (Info, error)      { panic("pending") }
func (f *Factory) RedeemTicket(ctx context.Context, t string) (string, error) { panic("pending") }
func (f *Factory) IssueTicket(ctx context.Context, s *Session) (string, time.Duration, error) {
	panic("pending")
}

// For the watcher (same package).

// glimpse is what Redis holds for one ID now. raw nil: no value. ended is "" or
// a reason; ReasonRotated: the session lives on under another ID (use follow).
type glimpse struct {
	raw   []byte
	ended Reason
}

// peek reads value and tombstone of many IDs at once: one MGET per few hundred
// IDs (in Cluster: one pipelined MGET an ID). No touch. Order as ids.
func (f *Factory) peek(ctx context.Context, ids []string) ([]glimpse, error) { panic("pending") }

// follow is Load for server code that was bound to the session before: it
// follows every rotation (Load follows only within the grace, and never a
// login: else the holder of a pre-login ID would get the logged-in session),
// and is no activity.
func (f *Factory) follow(ctx context.Context, id string) (*Session, error) { panic("pending") }

// updateFollowing is Update with follow instead of Load.
func (f *Factory) updateFollowing(ctx context.Context, id string, fn func(*Session) error) (*Session, error) {
	panic("pending")
}

// newsChannel carries the news (type news, news.go).
const newsChannel = "tandem:sessions"

// For the gorilla store (same package).

// values returns a private deep copy of what the session shows, as gorilla
// Values (reserved attributes included).
func (s *Session) values() (map[any]any, error) { panic("pending") }

// assign makes the session show v: attributes that differ from the loaded
// state become pending changes, missing ones deletions. Reserved names are
// left as they are.
func (s *Session) assign(v map[any]any) error { panic("pending") }

func ValidID(id string) bool    { panic("pending") }
func ValidHandle(h string) bool { panic("pending") }
func NewID() string             { panic("pending") }
func NewHandle() string         { panic("pending") }

type Login struct{ UserID, UserName string }

type Session struct{ _ int }

func (s *Session) ID() string                                       { panic("pending") } // "" until the first Save of a new one
func (s *Session) Handle() string                                   { panic("pending") }
func (s *Session) IsNew() bool                                      { panic("pending") } // not stored yet
func (s *Session) Get(name string) (any, bool)                      { panic("pending") }
func (s *Session) JSON(name string) (json.RawMessage, bool)         { panic("pending") }
func (s *Session) Set(name string, v any) error                     { panic("pending") } // json.RawMessage is taken as JSON
func (s *Session) Delete(name string) error                         { panic("pending") }
func (s *Session) Names() []string                                  { panic("pending") } // without "tandem." names
func (s *Session) UserID() string                                   { panic("pending") }
func (s *Session) UserName() string                                 { panic("pending") }
func (s *Session) Created() time.Time                               { panic("pending") }
func (s *Session) ExpiresAt() time.Time                             { panic("pending") }
func (s *Session) IdleExpiresAt() time.Time                         { panic("pending") }
func (s *Session) Renewed() bool                                    { panic("pending") }
func (s *Session) Save(ctx context.Context) error                   { panic("pending") }
func (s *Session) Rotate(ctx context.Context, login *Login) error   { panic("pending") }
func (s *Session) Destroy(ctx context.Context, reason Reason) error { panic("pending") }
func (s *Session) Snapshot() *Snapshot                              { panic("pending") }

type Snapshot struct {
	id  string
	raw []byte // stored bytes it shows: compare with glimpse.raw
}

func (s *Snapshot) Handle() string                                 { panic("pending") }
func (s *Snapshot) UserID() string                                 { panic("pending") }
func (s *Snapshot) UserName() string                               { panic("pending") }
func (s *Snapshot) ExpiresAt() time.Time                           { panic("pending") }
func (s *Snapshot) IdleExpiresAt() time.Time                       { panic("pending") }
func (s *Snapshot) JSON(name string) (json.RawMessage, bool)       { panic("pending") }
func (s *Snapshot) Names() []string                                { panic("pending") }
func (s *Snapshot) Readable(p Patterns) map[string]json.RawMessage { panic("pending") }

type Patterns struct{ _ int }

func ParsePatterns(patterns []string) (Patterns, error) { panic("pending") }
func (p Patterns) Match(name string) bool               { panic("pending") }

func Diff(old, new map[string]json.RawMessage) (set map[string]json.RawMessage, deleted []string) {
	panic("pending")
}

type Meta struct{ UserAgent, Address string }

func WithMeta(ctx context.Context, m Meta) context.Context { panic("pending") }

type Info struct {
	Handle, UserID, UserName     string
	Created, LastSeen, ExpiresAt time.Time
	UserAgent, Address           string
}
