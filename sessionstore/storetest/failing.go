package storetest

import "bytes"

func checkOutageError(t *trial) {
	t.needs(t.harness.SetAvailable != nil, "SetAvailable")
	b := t.browser()
	b.session()
	saving, leaving := b.open(), b.open()
	saving.mustLoad()
	leaving.mustLoad()

	t.setAvailable(false)
	p := b.open()
	p.leave()
	if p.loadErr == nil {
		t.broken("loading returned a session and no error")
	}
	saving.set("more", "of it")
	err := saving.save()
	saving.leave()
	if err == nil {
		t.broken("saving returned no error")
	}
	leaving.maxAge(-1)
	err = leaving.save()
	leaving.leave()
	if err == nil {
		t.broken("logging out returned no error")
	}
}

func checkOutageKept(t *trial) {
	t.needs(t.harness.SetAvailable != nil, "SetAvailable")
	b := t.browser()
	b.session()
	had := b.cookie()

	t.setAvailable(false)
	p := b.open() // as in s, _ := store.Get(…)
	t.setAvailable(true)
	p.set("more", "of it")
	_ = p.save()
	p.leave()

	if t.browserWith(had).get("mark") != "kept" {
		t.broken("the save wrote an empty session over the stored one")
	}
	if b.get("mark") != "kept" {
		t.broken("the save gave the browser a new session")
	}
}

func checkUndecodableError(t *trial) {
	t.needs(t.harness.Corrupt != nil, "Corrupt")
	b := t.browser()
	id := b.session()
	t.hook("Corrupt", t.harness.Corrupt(id))
	p := b.open()
	p.leave()
	if p.loadErr == nil {
		t.broken("loading returned a session and no error")
	}
}

func checkUndecodableKept(t *trial) {
	t.needs(t.harness.Corrupt != nil, "Corrupt")
	t.needs(t.harness.Raw != nil, "Raw")
	b := t.browser()
	id := b.session()
	late := b.open()
	late.mustLoad()
	planted := t.corrupt(id)

	p := b.open() // as in s, _ := store.Get(…)
	p.set("more", "of it")
	_ = p.save()
	p.leave()
	if !bytes.Equal(planted, t.raw(id)) {
		t.broken("the value was written over after a load that failed")
	}
	late.set("more", "of it")
	_ = late.save()
	late.leave()
	if !bytes.Equal(planted, t.raw(id)) {
		t.broken("the value was written over by a request that had loaded the value before")
	}
}
