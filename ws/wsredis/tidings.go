package wsredis

// tidings finds out whether announcements of changes of members were lost.
// They are numbered in Redis without a gap.
type tidings struct {
	based  bool   // it is known where delivery began
	newest uint64 // number of the newest that came, or was in what was read
	owed   uint64 // number at the last check; delivered by the next
}

// base takes what was announced up to number for delivered, unless it is known
// already where delivery began.
func (n *tidings) base(number uint64) {
	if !n.based {
		*n = tidings{based: true, newest: number}
	}
}

// heard notes an announcement and reports whether some before it are missing.
// first says that it is the first after the numbers were lost, if there were
// any.
func (n *tidings) heard(number uint64, first bool) (missed bool) {
	switch {
	case !n.based:
		n.base(number)
	case number <= n.newest: // told twice, or in what was read
	default:
		missed = number != n.newest+1 && (!first || n.newest != 0)
		n.newest = number
	}
	return missed
}

// owes reports whether some are missing that the last check knew of.
func (n *tidings) owes() bool { return n.newest < n.owed }

// check compares with the newest number in Redis, 0 for none, and reports
// whether something is missing. An announcement has from one check to the next
// to arrive.
func (n *tidings) check(number uint64) (missed bool) {
	n.base(number)
	if number < n.owed { // a fail-over or somebody lost numbers, and with them changes
		*n = tidings{based: true, newest: number, owed: number}
		return true
	}
	missed = n.newest < n.owed
	n.newest = max(n.newest, n.owed)
	n.owed = number
	return missed
}
