package sessionstore

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/gorilla/sessions"
	"github.com/rbcervilla/redisstore/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// stockJSON is the JSON serializer that applications write for redisstore.
type stockJSON struct{}

func (stockJSON) Serialize(s *sessions.Session) ([]byte, error) {
	m := map[string]any{}
	for k, v := range s.Values {
		m[k.(string)] = v
	}
	return json.Marshal(m)
}

func (stockJSON) Deserialize(b []byte, s *sessions.Session) error {
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for k, v := range m {
		s.Values[k] = v
	}
	return nil
}

// An unmodified redisstore application shares the cookie and the session.
func TestStoreBesideStock(t *testing.T) {
	for name, serializers := range map[string]struct {
		ours  Serializer
		stock redisstore.SessionSerializer
	}{
		"json": {JSON(), stockJSON{}},
		"gob":  {Gob(), redisstore.GobSerializer{}},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, s *redistest.Server) {
				a := newApp(t, s.Client(t), Config{Serializer: serializers.ours})
				stock, err := redisstore.NewRedisStore(t.Context(), a.rdb)
				if err != nil {
					t.Fatal(err)
				}
				stock.Serializer(serializers.stock)
				a.mux.HandleFunc("/stock", func(w http.ResponseWriter, r *http.Request) {
					gs, err := stock.Get(r, "sid")
					check(t, err)
					visits, _ := gs.Values["visits"].(string)
					gs.Values["visits"] = visits + "I"
					gs.Values["user.id"] = "7"
					check(t, gs.Save(r, w))
				})
				seen := map[any]any{}
				a.handle("/ours", func(gs *sessions.Session, r *http.Request) {
					seen = gs.Values
					setQuery(gs, r)
				})
				c := browser(t)
				a.ok(c, "/stock")
				a.ok(c, "/ours?chat.name=Ann")
				a.ok(c, "/stock")
				a.ok(c, "/ours")
				if seen["visits"] != "II" || seen["chat.name"] != "Ann" || seen["user.id"] != "7" {
					t.Errorf("our application sees %v", seen)
				}
				typed, err := a.f.Load(t.Context(), a.id(c))
				if err != nil || typed.UserID() != "7" || typed.Handle() != seen["tandem.sid"] {
					t.Errorf("the factory sees %v, %v", typed, err)
				}
			})
		})
	}
}
