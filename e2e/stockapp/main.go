// Command stockapp is an application as it stands before Tandem comes along: gorilla/sessions with an unmodified
// redisstore/v9. It logs a user in and counts visits. The end-to-end tests put Tandem in front of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/gorilla/sessions"
	"github.com/rbcervilla/redisstore/v9"
	"github.com/redis/go-redis/v9"
)

// jsonSerializer is what redisstore users write when other languages read the session too.
type jsonSerializer struct{}

func (jsonSerializer) Serialize(s *sessions.Session) ([]byte, error) {
	values := make(map[string]any, len(s.Values))
	for k, v := range s.Values {
		name, ok := k.(string)
		if !ok {
			return nil, fmt.Errorf("key %v is not a string", k)
		}
		values[name] = v
	}
	return json.Marshal(values)
}

func (jsonSerializer) Deserialize(b []byte, s *sessions.Session) error {
	var values map[string]any
	if err := json.Unmarshal(b, &values); err != nil {
		return err
	}
	for k, v := range values {
		s.Values[k] = v
	}
	return nil
}

type app struct {
	store  sessions.Store
	cookie string
}

func main() {
	var (
		address    = flag.String("address", "127.0.0.1:0", "where to listen")
		redisURL   = flag.String("redis", "redis://127.0.0.1:6379/0", "the shared Redis")
		serializer = flag.String("serializer", "gob", "gob or json")
		cookie     = flag.String("cookie", "tandem", "name of the shared cookie")
	)
	flag.Parse()
	log.SetFlags(0)

	options, err := redis.ParseURL(*redisURL)
	if err != nil {
		log.Fatal(err)
	}
	store, err := redisstore.NewRedisStore(context.Background(), redis.NewClient(options))
	if err != nil {
		log.Fatal(err)
	}
	switch *serializer {
	case "gob": // the default of redisstore
	case "json":
		store.Serializer(jsonSerializer{})
	default:
		log.Fatalf("serializer %q: want gob or json", *serializer)
	}

	a := &app{store: store, cookie: *cookie}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /app/login", a.login)
	mux.HandleFunc("GET /app/visit", a.visit)
	mux.HandleFunc("GET /app/show", a.show)
	mux.HandleFunc("POST /app/logout", a.logout)
	mux.HandleFunc("GET /app/headers", headers)

	l, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", l.Addr())
	if err := http.Serve(l, mux); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	s, err := a.store.Get(r, a.cookie)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.Values["user.id"] = r.FormValue("id")
	s.Values["user.name"] = r.FormValue("name")
	a.answer(w, r, s)
}

func (a *app) visit(w http.ResponseWriter, r *http.Request) {
	s, err := a.store.Get(r, a.cookie)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	switch n := s.Values["visits"].(type) {
	case int:
		s.Values["visits"] = n + 1
	case float64: // the JSON serializer's number
		s.Values["visits"] = n + 1
	default:
		s.Values["visits"] = 1
	}
	a.answer(w, r, s)
}

// show reads the session and leaves it as it is.
func (a *app) show(w http.ResponseWriter, r *http.Request) {
	s, err := a.store.Get(r, a.cookie)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	shown := map[string]any{}
	for k, v := range s.Values {
		if name, ok := k.(string); ok {
			shown[name] = v
		}
	}
	writeJSON(w, shown)
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	s, err := a.store.Get(r, a.cookie)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.Options.MaxAge = -1
	a.answer(w, r, s)
}

// answer saves the session and shows what the application knows of it.
func (a *app) answer(w http.ResponseWriter, r *http.Request, s *sessions.Session) {
	if err := s.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	shown := map[string]any{}
	for _, name := range []string{"user.id", "user.name", "visits", "chat.name"} {
		if v, ok := s.Values[name]; ok {
			shown[name] = v
		}
	}
	writeJSON(w, shown)
}

// headers shows what the gateway told the application of the request.
func headers(w http.ResponseWriter, r *http.Request) {
	h := r.Header.Clone()
	h.Del("Cookie") // the session's ID is not for showing
	writeJSON(w, map[string]any{"headers": h, "host": r.Host, "path": r.URL.Path})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}
