package storetest

import "time"

func checkLogout(t *trial) {
	b := t.browser()
	id := b.session()
	had := b.cookie()
	cleared := b.logout().cookieSet(t.cookie)
	if cleared == nil || cleared.MaxAge >= 0 && !cleared.Expires.Before(time.Now()) || b.cookie() != "" {
		t.broken("the cookie is not cleared")
	}
	if t.harness.Raw != nil && t.raw(id) != nil {
		t.broken("the backend still has the session")
	}
	t.over(had)
}

// over ends the trial when a cookie still leads to a session.
func (t *trial) over(cookie string) {
	for _, at := range t.apps() {
		if t.browserWith(cookie).on(at).get("mark") != nil {
			t.broken("the cookie still leads to the session")
		}
	}
}

func checkLateSave(t *trial) { t.lateSave(t.home) }

func checkLateSaveReplicas(t *trial) {
	t.needs(t.away != nil, "Replica")
	t.lateSave(t.away)
}

// lateSave logs out while a request is under way, which then saves.
func (t *trial) lateSave(slowAt *app) {
	b := t.browser()
	id := b.session()
	had := b.cookie()
	slow := b.on(slowAt).open()
	slow.mustLoad()
	b.logout()
	slow.set("more", "of it")
	_ = slow.save() // may be refused
	slow.leave()
	if t.harness.Raw != nil && t.raw(id) != nil {
		t.broken("the session is back in the backend, and so is who has its cookie")
	}
	t.over(had)
	if b.get("mark") != nil {
		t.broken("the browser is in the session again")
	}
}

// checkLogoutRace logs out by a request that was sent before the login: it has
// loaded the session before, or does so after.
func checkLogoutRace(t *trial) {
	t.needs(t.harness.Renew != nil, "Renew")
	for _, loadsBefore := range []bool{true, false} {
		b := t.browser()
		b.session()
		slow := b.send()
		if loadsBefore {
			slow.load()
		}
		p := b.open()
		p.mustLoad()
		p.renew()
		p.leave()
		renewed := b.cookie()
		if !loadsBefore {
			slow.load()
		}
		slow.maxAge(-1)
		err := slow.save()
		slow.leave()
		if err == nil {
			t.over(renewed)
		} else if b.cookie() == "" {
			t.broken("the logout failed, and the cookie is cleared")
		}
	}
}
