package storetest

import (
	"bytes"
	"strconv"
)

func checkConcurrentChanges(t *trial) { t.concurrentChanges(t.home, t.home) }

func checkConcurrentReplicas(t *trial) {
	t.needs(t.away != nil, "Replica")
	t.concurrentChanges(t.home, t.away)
}

// concurrentChanges has requests load together, change an attribute each, and
// save: first one after the other, then at the same time.
func (t *trial) concurrentChanges(first, second *app) {
	const writers = 8
	for _, order := range []string{"one after the other", "at the same time"} {
		b := t.browser()
		b.session()
		pages := make([]*page, writers)
		saves := make([]func(), writers)
		for i := range pages {
			at := first
			if i%2 == 1 {
				at = second
			}
			p := b.on(at).open()
			p.mustLoad()
			p.set("of "+strconv.Itoa(i), "kept")
			pages[i] = p
			saves[i] = func() {
				if err := p.save(); err != nil {
					t.broken("one of %d concurrent changes was refused: %v", writers, err)
				}
			}
		}
		if order == "at the same time" {
			t.together(saves...)
		} else {
			for _, save := range saves {
				save()
			}
		}
		for _, p := range pages {
			p.leave()
		}

		p := b.open()
		lost := 0
		for i := range pages {
			if p.get("of "+strconv.Itoa(i)) != "kept" {
				lost++
			}
		}
		p.leave()
		if lost > 0 {
			t.broken("requests that load together and save %s lose changes", order)
		}
	}
}

func checkDeletion(t *trial) {
	for _, at := range t.apps() {
		b := t.browser()
		b.session()
		slow := b.on(at).open()
		slow.mustLoad()

		p := b.open()
		p.mustLoad()
		p.delete("mark")
		p.mustSave()
		p.leave()
		if b.get("mark") != nil {
			t.broken("a deleted attribute is still there")
		}

		slow.set("other", "attribute")
		slow.mustSave()
		slow.leave()
		if b.get("mark") != nil {
			t.broken("a request that was slower brings it back")
		}
	}
}

func checkUnchangedSave(t *trial) {
	b := t.browser()
	id := b.session()
	for _, name := range []string{"a", "b", "c", "d"} { // maps have no order: bytes may differ by chance
		b.set(name, name)
	}
	slow := b.open()
	slow.mustLoad()
	b.set("mark", "newer")
	slow.mustSave()
	slow.leave()
	if b.get("mark") != "newer" {
		t.broken("it writes its old state over a newer one")
	}

	if t.harness.Raw != nil {
		before := t.raw(id)
		for range 8 {
			p := b.open()
			p.mustLoad()
			p.mustSave()
			p.leave()
		}
		if !bytes.Equal(before, t.raw(id)) {
			t.broken("it writes the same values again, in other bytes")
		}
	}

	if t.harness.Raw != nil && t.harness.Corrupt != nil {
		slow := b.open()
		slow.mustLoad()
		planted := t.corrupt(id)
		_ = slow.save() // may find the fault
		slow.leave()
		if !bytes.Equal(planted, t.raw(id)) {
			t.broken("it writes, over what it has not read")
		}
	}
}

func checkEmptySession(t *trial) {
	b := t.browser()
	p := b.open()
	p.mustLoad()
	p.mustSave()
	p.leave()
	if b.cookie() != "" {
		t.broken("it sets a cookie")
	}
}

func checkClientGone(t *trial) {
	b := t.browser()
	b.session()
	p := b.open()
	p.mustLoad()
	p.set("done", "yes")
	p.abandon()
	err := p.save()
	p.leave()
	switch {
	case err != nil:
		t.broken("the save failed: %v", err)
	case b.get("done") != "yes":
		t.broken("the save was not carried out")
	}
}
