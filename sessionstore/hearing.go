package sessionstore

// heardOf is how many sessions hearing remembers.
const heardOf = 256

// hearing is of which sessions there was something new lately, so that whoever
// has loaded one knows whether he may have missed something. Were it only how
// much there was, each reload would seem to be news to all loads under way,
// and a crowd that binds at a time would load everything twice.
type hearing struct {
	count uint64          // of all that was noted
	last  [heardOf]string // handles, in a ring
}

// note remembers something new of the session with this handle.
func (h *hearing) note(handle string) {
	h.last[h.count%heardOf] = handle
	h.count++
}

// gap counts as news of every session.
func (h *hearing) gap() { h.count += heardOf }

// since reports whether there may have been news of this session since count
// was before.
func (h *hearing) since(before uint64, handle string) bool {
	if h.count-before >= heardOf {
		return true
	}
	for ; before != h.count; before++ {
		if h.last[before%heardOf] == handle {
			return true
		}
	}
	return false
}
