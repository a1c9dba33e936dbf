package gateway

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// api is what stands under /admin/v1, behind the token.
func (a *admin) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /connections", a.listConnections)
	if a.cfg.Sessions != nil {
		mux.HandleFunc("GET /sessions", a.listSessions)
		mux.HandleFunc("DELETE /sessions/{handle}", a.endSession)
		mux.HandleFunc("DELETE /users/{id}/sessions", a.endUser)
	}
	if a.cfg.Reload != nil {
		mux.HandleFunc("POST /reload", a.reload)
	}
	for pattern, h := range a.cfg.Mux {
		mux.Handle("/"+strings.TrimPrefix(pattern, "/"), h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.JSON(w, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "The admin API has no such method and path."})
	})
	return mux
}

func (a *admin) listConnections(w http.ResponseWriter, _ *http.Request) {
	items := a.g.Sessions()
	if a.cfg.ExtraConnections != nil {
		items = append(items, a.cfg.ExtraConnections()...)
	}
	writeItems(w, items)
}

// sessionItem is one user session.
type sessionItem struct {
	Handle    string    `json:"handle"`
	User      string    `json:"user"` // ID; empty: nobody is logged in
	UserName  string    `json:"user_name"`
	Created   time.Time `json:"created"`
	LastSeen  time.Time `json:"last_seen"`
	ExpiresAt time.Time `json:"expires_at"`
	UserAgent string    `json:"user_agent"`
	Address   string    `json:"address"`
	Sockets   int       `json:"sockets"` // over all replicas
}

// listSessions lists the sessions of ?user=, a user's ID or name, or all.
func (a *admin) listSessions(w http.ResponseWriter, r *http.Request) {
	var infos []sessionstore.Info
	var err error
	if user := r.FormValue("user"); user != "" {
		infos, err = a.cfg.Sessions.Find(r.Context(), user)
	} else {
		infos, err = a.cfg.Sessions.List(r.Context(), "")
	}
	if err != nil {
		a.fail(w, "list sessions", err)
		return
	}
	items := make([]sessionItem, len(infos))
	for i, s := range infos {
		items[i] = sessionItem{
			Handle: s.Handle, User: s.UserID, UserName: s.UserName,
			Created: s.Created, LastSeen: s.LastSeen, ExpiresAt: s.ExpiresAt,
			UserAgent: s.UserAgent, Address: s.Address,
		}
	}
	if a.cfg.SocketCounts != nil {
		handles := make([]string, len(infos))
		for i, s := range infos {
			handles[i] = s.Handle
		}
		for i, n := range a.cfg.SocketCounts(r.Context(), handles) {
			items[i].Sockets = n
		}
	}
	writeItems(w, items)
}

func (a *admin) endSession(w http.ResponseWriter, r *http.Request) {
	err := sessionstore.ErrNotFound
	if handle := r.PathValue("handle"); sessionstore.ValidHandle(handle) {
		err = a.cfg.Sessions.EndHandle(r.Context(), handle, sessionstore.ReasonRevoked)
	}
	if err != nil {
		a.fail(w, "end session", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *admin) endUser(w http.ResponseWriter, r *http.Request) {
	n, err := a.cfg.Sessions.EndUser(r.Context(), r.PathValue("id"), sessionstore.ReasonRevoked, "")
	if err != nil {
		a.fail(w, "end a user's sessions", err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]int{"ended": n})
}

// reload puts the configuration in force as it is now, or answers 422 with
// its faults, one each, and leaves in force what was.
func (a *admin) reload(w http.ResponseWriter, _ *http.Request) {
	if err := a.cfg.Reload(); err != nil {
		a.g.log.Error("reload refused, what was in force stays", "err", err)
		problem.JSON(w, problem.Problem{
			Status: http.StatusUnprocessableEntity, Code: "bad_configuration",
			Detail: "The configuration has faults; what was in force stays.", Faults: strings.Split(err.Error(), "\n"),
		})
		return
	}
	a.g.log.Info("configuration reloaded")
	writeJSON(w, http.StatusOK, map[string]bool{"reloaded": true})
}

// fail answers for an error of the session store. To the operator "no such
// session" is 404, not the 401 that it is to a visitor.
func (a *admin) fail(w http.ResponseWriter, doing string, err error) {
	if errors.Is(err, sessionstore.ErrNotFound) || errors.Is(err, sessionstore.ErrEnded) {
		problem.JSON(w, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "There is no session with this handle."})
		return
	}
	a.g.log.Error("admin: "+doing, "err", err)
	problem.JSON(w, problem.From(err))
}

func writeItems[T any](w http.ResponseWriter, items []T) {
	if items == nil {
		items = []T{}
	}
	writeJSON(w, http.StatusOK, struct {
		Items []T `json:"items"`
	}{items})
}
