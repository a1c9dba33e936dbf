package sessionstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// A page counts its visits. Any application of gorilla/sessions is written
// like this; only the store is another one.
func ExampleStore() {
	conn, err := redisconn.Open(redisconn.Config{URL: "embedded:"}) // or redis://127.0.0.1:6379/0
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	factory, err := sessionstore.New(conn.Client(), sessionstore.Config{})
	if err != nil {
		log.Fatal(err)
	}
	store, err := sessionstore.NewStore(factory, sessionstore.StoreConfig{Cookie: "shop"})
	if err != nil {
		log.Fatal(err)
	}

	page := func(w http.ResponseWriter, r *http.Request) {
		session, err := store.Get(r, "shop")
		if err != nil { // Redis is away: that is not the same as "not logged in"
			http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
			return
		}
		visits, _ := session.Values["visits"].(float64) // numbers are JSON's
		session.Values["visits"] = visits + 1
		if err := session.Save(r, w); err != nil {
			http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "visit %v", visits+1)
	}

	visit := browser(page)
	fmt.Println(visit("/"))
	fmt.Println(visit("/"))
	// Output:
	// visit 1
	// visit 2
}

// A login replaces the session's ID and keeps its values; whoever knew the
// old ID has nothing. A logout ends the session for all its holders.
func ExampleFactory_Login() {
	factory, done := embedded()
	defer done()
	store, err := sessionstore.NewStore(factory, sessionstore.StoreConfig{Cookie: "shop"})
	if err != nil {
		log.Fatal(err)
	}

	pages := http.NewServeMux()
	pages.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		current, err := store.Session(r) // none yet is fine
		if errors.Is(err, sessionstore.ErrUnavailable) {
			http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
			return
		}
		session, err := factory.Login(r.Context(), current, sessionstore.Login{UserID: "7", UserName: "Ada"})
		if err != nil {
			http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
			return
		}
		store.SetCookie(w, r, session)
	})
	pages.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		session, err := store.Get(r, "shop")
		if err == nil {
			session.Options.MaxAge = -1
			err = session.Save(r, w)
		}
		if err != nil { // never let anybody believe that they are logged out
			http.Error(w, "try again in a moment", http.StatusServiceUnavailable)
		}
	})
	pages.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		session, err := store.Session(r)
		if err != nil {
			fmt.Fprint(w, "who are you?")
			return
		}
		fmt.Fprintf(w, "hello, %s", session.UserName())
	})

	visit := browser(pages.ServeHTTP)
	fmt.Println(visit("/"))
	visit("/login")
	fmt.Println(visit("/"))
	visit("/logout")
	fmt.Println(visit("/"))
	// Output:
	// who are you?
	// hello, Ada
	// who are you?
}

// A session needs no request: its ID is enough. Two that change different
// attributes at the same time both keep their change.
func ExampleFactory_Load() {
	factory, done := embedded()
	defer done()
	ctx := context.Background()

	id := newSession(ctx, factory)
	page, err := factory.Load(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	socket, err := factory.Load(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	err = errors.Join(
		page.Set("cart", []string{"tea"}), socket.Set("chat.name", "Ada"),
		page.Save(ctx), socket.Save(ctx),
	)
	if err != nil {
		log.Fatal(err)
	}

	cart, _ := socket.JSON("cart") // after Save the copy shows what is stored
	name, _ := socket.JSON("chat.name")
	fmt.Printf("%s %s\n", cart, name)

	_, err = factory.Load(ctx, sessionstore.NewID())
	fmt.Println(err)
	// Output:
	// ["tea"] "Ada"
	// session not found
}

// Update is for a change that depends on what is there: its function runs
// again when somebody else was faster.
func ExampleFactory_Update() {
	factory, done := embedded()
	defer done()
	ctx := context.Background()

	id := newSession(ctx, factory)
	var writers sync.WaitGroup
	for range 10 {
		writers.Go(func() {
			_, err := factory.Update(ctx, id, func(s *sessionstore.Session) error {
				unread, _ := s.Get("unread")
				n, _ := unread.(float64)
				return s.Set("unread", n+1)
			})
			if err != nil {
				log.Fatal(err)
			}
		})
	}
	writers.Wait()

	session, err := factory.Load(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(session.Get("unread"))
	// Output: 10 true
}

// What has ended stays ended, and says why to who comes late.
func ExampleFactory_End() {
	factory, done := embedded()
	defer done()
	ctx := context.Background()

	id := newSession(ctx, factory)
	slow, err := factory.Load(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	if err := factory.End(ctx, id, sessionstore.ReasonLogout); err != nil {
		log.Fatal(err)
	}

	err = errors.Join(slow.Set("cart", "tea"), slow.Save(ctx))
	fmt.Println(err, errors.Is(err, sessionstore.ErrEnded))

	var ended *sessionstore.EndedError
	_, err = factory.Load(ctx, id)
	fmt.Println(errors.As(err, &ended), ended.Reason)
	// Output:
	// session ended: logout true
	// true logout
}

// tab is a socket that tells its page what becomes of the session.
type tab struct{ frames chan string }

func (t tab) SessionChanged(s *sessionstore.Snapshot) {
	name, _ := s.JSON("chat.name")
	t.send("chat.name is " + string(name))
}
func (t tab) SessionEnded(r sessionstore.Reason) { t.send("ended: " + string(r)) }
func (t tab) SessionRotated()                    { t.send("fetch the cookie again") }
func (t tab) SessionExpiring(in time.Duration)   { t.send("ends in " + in.String()) }
func (t tab) SessionUnverified()                 { t.send("come back later") }

// send must not block: a client that does not read loses its connection.
func (t tab) send(frame string) {
	select {
	case t.frames <- frame:
	default:
	}
}

// A Watcher tells everybody who is bound to a session what becomes of it,
// whoever changed it and on whichever replica.
func ExampleWatcher_Bind() {
	factory, done := embedded()
	defer done()
	ctx, stop := context.WithCancel(context.Background())

	readable, err := sessionstore.ParsePatterns([]string{"chat.*"})
	if err != nil {
		log.Fatal(err)
	}
	watcher, err := sessionstore.NewWatcher(factory, sessionstore.WatchConfig{Readable: readable})
	if err != nil {
		log.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = watcher.Run(ctx) })
	defer running.Wait()
	defer stop()

	id := newSession(ctx, factory)
	socket := tab{frames: make(chan string, 16)}
	binding, now, err := watcher.Bind(ctx, id, socket)
	if err != nil {
		log.Fatal(err)
	}
	defer binding.Close()
	fmt.Println("bound to a session of", now.UserName())

	// Elsewhere, a page:
	page, err := factory.Load(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(page.Set("chat.name", "Countess"), page.Save(ctx)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-socket.frames)
	if err := page.Destroy(ctx, sessionstore.ReasonLogout); err != nil {
		log.Fatal(err)
	}
	for frame := range socket.frames { // a state may be told twice
		if frame == "ended: logout" {
			fmt.Println(frame)
			break
		}
	}
	// Output:
	// bound to a session of Ada
	// chat.name is "Countess"
	// ended: logout
}

// embedded opens a Redis inside of this process; see the example of Store
// for one outside.
func embedded() (factory *sessionstore.Factory, done func()) {
	conn, err := redisconn.Open(redisconn.Config{URL: "embedded:"})
	if err != nil {
		log.Fatal(err)
	}
	factory, err = sessionstore.New(conn.Client(), sessionstore.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return factory, func() { _ = conn.Close() }
}

// newSession logs Ada in and returns the ID that her cookie would carry.
func newSession(ctx context.Context, factory *sessionstore.Factory) (id string) {
	session, err := factory.Login(ctx, nil, sessionstore.Login{UserID: "7", UserName: "Ada"})
	if err != nil {
		log.Fatal(err)
	}
	return session.ID()
}

// browser returns a function that visits pages of a handler and keeps cookies.
func browser(handler http.HandlerFunc) (visit func(path string) string) {
	jar, _ := cookiejar.New(nil)
	return func(path string) string {
		server := httptest.NewServer(handler)
		defer server.Close()
		client := server.Client()
		client.Jar = jar
		response, err := client.Get(server.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
}
