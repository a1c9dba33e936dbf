package storetest

import (
	"bytes"
	"strings"
	"unicode"
)

func checkUnknownID(t *trial) {
	b := t.browser()
	b.session()
	t.notAdopted(reversed(b.cookie()), "an ID that was never issued")

	had := b.cookie()
	b.logout()
	t.notAdopted(had, "an ID that has ended")
}

// notAdopted has a victim come with a cookie that an attacker chose.
func (t *trial) notAdopted(cookie, what string) {
	victim := t.browserWith(cookie)
	p := victim.open() // an error is an answer, too
	p.set("user", "victim")
	_ = p.save()
	p.leave()
	if t.browserWith(cookie).get("user") == "victim" {
		t.broken("%s was adopted: who chose it is in the victim's session", what)
	}
	if victim.cookie() == cookie && p.errs == nil {
		t.broken("%s was adopted", what)
	}
}

func reversed(s string) string {
	runes := []rune(s)
	for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
		runes[i], runes[j] = runes[j], runes[i]
	}
	return string(runes)
}

func checkMalformedID(t *trial) {
	b := t.browser()
	b.session()
	real := b.cookie()
	for _, bad := range []struct{ what, cookie string }{
		{"10 kB", strings.Repeat("x", 10_000)},
		{"one letter", "x"},
		{"control characters", "a\x00b\r\nSet-Cookie: evil=1"},
		{"a path", "../../../../etc/passwd"},
		{"a pattern", "*"},
		{"a hash tag", "{tag}"},
		{"not UTF-8", "\xff\xfe\xfd"},
		{"an ID and more", real + "A"},
		{"an ID but for its end", real[:len(real)-1]},
		{"an ID in the other case", strings.Map(otherCase, real)},
	} {
		if bad.cookie != real {
			t.notEchoed(bad.cookie, bad.what)
		}
	}
	if t.harness.Corrupt == nil || t.harness.Raw == nil {
		return
	}
	t.notLookedUp("settings")
}

// notLookedUp has a browser come with the rest of a key of somebody else.
func (t *trial) notLookedUp(key string) {
	p := t.browser().openAs(key)
	p.leave()
	refused := p.loadErr != nil // whatever is there
	planted := t.corrupt(key)
	p = t.browser().openAs(key)
	p.set("user", "victim")
	_ = p.save()
	p.leave()
	switch {
	case p.loadErr != nil && !refused:
		t.broken("another key was looked up")
	case !bytes.Equal(planted, t.raw(key)):
		t.broken("another key was written over")
	}
}

// notEchoed has a browser come with what is no ID.
func (t *trial) notEchoed(cookie, what string) {
	p := t.browser().openAs(cookie)
	if p.get("mark") != nil {
		t.broken("%s led to a session", what)
	}
	p.set("user", "victim")
	_ = p.save()
	id := p.id()
	a := p.leave()
	if set := a.cookieSet(t.cookie); set != nil && set.Value == cookie || id == cookie && p.errs == nil {
		t.broken("%s was adopted as an ID", what)
	}
	if len(cookie) < 4 {
		return // it is part of every answer
	}
	if where, ok := a.shows(cookie, ""); ok {
		t.broken("%s was echoed in %s", what, where)
	}
	for _, err := range p.errs {
		if strings.Contains(err.Error(), cookie) {
			t.broken("%s was echoed in an error", what)
		}
	}
}

func otherCase(r rune) rune {
	if unicode.IsUpper(r) {
		return unicode.ToLower(r)
	}
	return unicode.ToUpper(r)
}

func checkSecretID(t *trial) {
	visit := func(b *browser, what string) {
		secrets := []string{b.cookie()}
		p := b.open()
		secrets = append(secrets, p.id())
		p.set("more", what)
		_ = p.save()
		secrets = append(secrets, p.id())
		a := p.leave()
		t.keptSecret(append(secrets, b.cookie()), a, p.errs, what)
	}
	b := t.browser()
	id := b.session()
	visit(b, "in good times")
	if t.harness.SetAvailable != nil {
		p := b.open()
		p.set("more", "than before")
		t.setAvailable(false)
		_ = p.save()
		t.keptSecret([]string{id, b.cookie()}, p.leave(), p.errs, "in a save during an outage")
		visit(b, "during an outage")
		t.setAvailable(true)
	}
	if t.harness.Corrupt != nil {
		t.hook("Corrupt", t.harness.Corrupt(id))
		visit(b, "of a value that cannot be decoded")
	}
	b = t.browser()
	b.session()
	had := b.cookie()
	b.logout()
	visit(t.browserWith(had), "after the logout")
}

func (t *trial) keptSecret(secrets []string, a answer, errs []error, when string) {
	for _, secret := range secrets {
		if len(secret) < 8 {
			continue
		}
		for _, err := range errs {
			if strings.Contains(err.Error(), secret) {
				t.broken("an error shows the ID: %s", when)
			}
		}
		if where, ok := a.shows(secret, t.cookie); ok {
			t.broken("%s shows the ID: %s", where, when)
		}
	}
}

// renew does what the application does at login.
func (p *page) renew() {
	var err error
	p.do(func() { err = p.t.harness.Renew(p.w, p.r, p.session) })
	p.t.hook("Renew", err)
}

func checkRenewal(t *trial) {
	t.needs(t.harness.Renew != nil, "Renew")
	b := t.browser()
	b.session()
	old := b.cookie()
	p := b.open()
	p.mustLoad()
	p.renew()
	p.leave()
	t.renewed(b, old)
}

// checkRenewalRace has two requests under way during the login: one has loaded
// the session before, one does so after.
func checkRenewalRace(t *trial) {
	t.needs(t.harness.Renew != nil, "Renew")
	for _, at := range t.apps() {
		for _, loadsBefore := range []bool{true, false} {
			b := t.browser()
			b.session()
			old := b.cookie()
			slow := b.on(at).send()
			if loadsBefore {
				slow.load()
			}
			p := b.open()
			p.mustLoad()
			p.renew()
			p.leave()
			if !loadsBefore {
				slow.load()
			}
			slow.set("more", "of it")
			_ = slow.save() // may be refused
			slow.leave()
			t.renewed(b, old)
		}
	}
}

func checkRenewalTwice(t *trial) {
	t.needs(t.harness.Renew != nil, "Renew")
	b := t.browser()
	b.session()
	cookies := []string{b.cookie()}
	first, second := b.open(), b.open()
	for _, p := range []*page{first, second} {
		p.mustLoad()
		p.renew()
		p.leave()
		cookies = append(cookies, b.cookie())
	}
	t.renewed(b, cookies[0])
	b.logout()
	for _, cookie := range cookies {
		t.over(cookie)
	}
}

// renewed ends the trial unless the browser has its session under another ID
// than the old one, which is worth nothing.
func (t *trial) renewed(b *browser, old string) {
	if b.cookie() == old {
		t.broken("the browser has the old ID afterwards")
	}
	for _, at := range t.apps() {
		if b.on(at).get("mark") != "kept" {
			t.broken("the browser's session lost its values")
		}
		if t.browserWith(old).on(at).get("mark") != nil {
			t.broken("the old ID still leads to the session")
		}
	}
}
