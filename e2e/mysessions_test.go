package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A user sees and ends sessions of its own, and an operator those of a user: on whatever replica their sockets are.
func TestMySessions(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startReplica(t, settings{redis: redis.URL()}), startReplica(t, settings{redis: redis.URL()})
	desk := newPerson(t)
	desk.register(a.url, "ada")
	type device struct {
		*person
		handle string
		socket *socket
	}
	login := func() device {
		p := newPerson(t)
		p.login(b.url, "ada")
		return device{p, p.session(b.url).Handle, p.open(b.url, "mine")}
	}
	phone, tablet, laptop := login(), login(), login()
	mine := desk.open(b.url, "mine")

	page := desk.page(a.url + "/account").body
	for _, handle := range []string{desk.session(a.url).Handle, phone.handle, tablet.handle, laptop.handle} {
		if !strings.Contains(page, handle) {
			t.Errorf("the account page does not show %s", handle)
		}
	}
	desk.post(a.url+"/account/sessions/"+phone.handle+"/revoke", nil)
	phone.socket.wantClose(4401, "revoked")
	if phone.session(b.url).User != nil || tablet.session(b.url).User == nil {
		t.Error("not the one session was ended")
	}
	desk.post(a.url+"/account/sessions/revoke-others", nil)
	tablet.socket.wantClose(4401, "revoked")
	laptop.socket.wantClose(4401, "revoked")
	mine.operation("still-here", 1)

	var list struct {
		Items []struct {
			Handle  string
			User    string
			Sockets int
		}
	}
	if code := a.adminJSON(http.MethodGet, "sessions?user=ada", nil, &list); code != http.StatusOK || len(list.Items) != 1 ||
		list.Items[0].Handle != desk.session(a.url).Handle || list.Items[0].Sockets != 1 {
		t.Errorf("the operator's list: %d %+v", code, list.Items)
	}
	path := "sessions/" + desk.session(a.url).Handle
	if code := a.adminJSON(http.MethodDelete, path, nil, nil); code/100 != 2 {
		t.Errorf("the operator's revocation: %d", code)
	}
	mine.wantClose(4401, "revoked")
	if code := a.adminJSON(http.MethodDelete, path, nil, nil); code != http.StatusNotFound {
		t.Errorf("revoked a second time: %d", code)
	}
}

// A session has a size that neither pages nor sockets get past, and keeps what it had.
func TestSessionSize(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(r.url, "ada")
	sock := ada.open(r.url, "size")
	half := strings.Repeat("x", 40<<10)
	if a := ada.sendJSON(http.MethodPatch, r.url+"/api/session", map[string]any{"set": map[string]any{"chat.first": half}}); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	more := map[string]any{"chat.second": half}
	if a := ada.sendJSON(http.MethodPatch, r.url+"/api/session", map[string]any{"set": more}); a.status != http.StatusRequestEntityTooLarge ||
		!strings.Contains(a.body, "session_too_large") {
		t.Errorf("by page: %d %s", a.status, a.body)
	}
	sock.send(map[string]any{"type": "session_set", "id": "s", "set": more})
	if f := sock.wantError("TOO_LARGE"); f.fields["re"] != "s" {
		t.Errorf("by socket: %s", f.raw)
	}
	if v := ada.session(r.url).Values; v["chat.first"] != half || v["chat.second"] != nil {
		t.Error("the session is not what it was")
	}
}
