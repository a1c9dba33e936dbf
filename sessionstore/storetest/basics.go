package storetest

import (
	"fmt"
	"strings"

	"github.com/gorilla/sessions"
)

func checkNewSession(t *trial) {
	b := t.browser()
	p := b.open()
	p.mustLoad()
	if !p.session.IsNew {
		t.broken("a session without a cookie is not new")
	}
	p.leave()
	b.session()
	for _, at := range t.apps() {
		p := b.on(at).open()
		p.mustLoad()
		if p.session.IsNew {
			t.broken("a stored session is new")
		}
		if got := p.get("mark"); got != "kept" {
			t.broken("what was saved is not there on the next page")
		}
		p.leave()
	}
}

func checkOneSession(t *trial) {
	b := t.browser()
	b.session()
	p := b.open()
	var again *sessions.Session
	p.do(func() {
		again, _ = b.at.store.Get(p.r, t.cookie)
		p.session.Values["first"] = "1"
		again.Values["second"] = "2"
		p.note(sessions.Save(p.r, p.w))
	})
	if again != p.session {
		t.broken("Get returned two sessions")
	}
	if p.errs != nil {
		t.broken("sessions.Save: %v", p.errs[0])
	}
	p.delete("first")
	p.set("third", "3")
	p.mustSave()
	p.leave()
	if b.get("first") != nil || b.get("second") != "2" || b.get("third") != "3" {
		t.broken("a request that saves twice loses a change")
	}
}

func checkValues(t *trial) {
	values := []struct {
		name  string
		value any
	}{
		{"text", "Zoë <b>\"&\" \u2028 🦉"},
		{"empty", ""},
		{"chat.name", "a name with a dot"},
		{"имя", "a name that is not ASCII"},
		{"true", true},
		{"false", false},
		{"zero", 0},
		{"negative", -42},
		{"beyond 2^53", int64(1<<53 + 1)},
		{"largest", int64(1<<63 - 1)},
		{"fraction", 0.1},
		{"tiny", -1.5e-300},
		{"long", strings.Repeat("x", 1000)},
	}
	b := t.browser()
	p := b.open()
	p.mustLoad()
	for _, v := range values {
		p.set(v.name, v.value)
	}
	p.mustSave()
	p.leave()
	b.set("later", "a second save") // goes through the decoded values
	p = b.open()
	p.mustLoad()
	for _, v := range values {
		if got := p.get(v.name); !sameValue(got, v.value) {
			t.broken("the %T under %q does not come back", v.value, v.name)
		}
	}
	p.leave()
}

// sameValue lets a number be of another type: JSON has one only.
func sameValue(got, want any) bool {
	switch want := want.(type) {
	case string, bool:
		return got == want
	case float64:
		return got == want
	default:
		if f, ok := got.(float64); ok {
			return fmt.Sprintf("%.0f", f) == fmt.Sprint(want)
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	}
}

func checkFlashes(t *trial) {
	b := t.browser()
	b.session()
	for _, message := range []string{"saved", "mailed"} {
		p := b.open()
		p.mustLoad()
		p.do(func() {
			p.session.AddFlash(message)
			p.session.AddFlash("not "+message, "warnings")
		})
		p.mustSave()
		p.leave()
	}

	for i, want := range []string{"[saved mailed] [not saved not mailed]", "[] []"} {
		var got string
		p := b.open()
		p.mustLoad()
		p.do(func() { got = fmt.Sprint(p.session.Flashes(), " ", p.session.Flashes("warnings")) })
		p.mustSave()
		p.leave()
		if got != want {
			t.broken("page %d after the messages shows %s, not %s", i+1, got, want)
		}
	}
}

func checkParallelRequests(t *trial) {
	b := t.browser()
	b.session()
	pages := make([]*page, 16)
	loads, saves := make([]func(), len(pages)), make([]func(), len(pages))
	for i := range pages {
		apps := t.apps()
		at := b.on(apps[i%len(apps)])
		loads[i] = func() {
			p := at.open()
			p.mustLoad()
			if p.get("mark") != "kept" {
				t.broken("one of several requests at once does not see the session")
			}
			pages[i] = p
		}
		saves[i] = func() {
			pages[i].set("last", "page")
			pages[i].mustSave()
			pages[i].leave()
		}
	}
	t.together(loads...)
	t.together(saves...)
	if b.get("mark") != "kept" || b.get("last") != "page" {
		t.broken("several requests at once lost the session")
	}
}
