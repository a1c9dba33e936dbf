package wsredis

import (
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// topic is one document's subscription.
type topic struct {
	// Fixed after construction.
	document string
	receiver ws.Receiver
	ready    chan struct{} // closed when confirmed or failed

	// Guarded by subscriptions.mu.
	confirmed bool
	failed    error
	closed    bool
	gap       bool                // receiver.Gap is due
	survey    bool                // the tick is to compare Redis' members with ours
	replicas  map[string]struct{} // other incarnations that have members here
	at        ws.Position         // newest position known, from anywhere
	delivered uint64              // highest seq announced to us in at.Epoch
	expected  uint64              // head at the last check; delivered by the next
	based     bool                // it is known where delivery began
	news      tidings             // announcements of changes of members
	checked   time.Time           // last check that succeeded
	history   string              // of Redis' writes when the script last checked it; empty: not yet
	prolonged time.Time           // last time that TTLs were looked at
}

func newTopic(document string, r ws.Receiver) *topic {
	return &topic{
		document: document, receiver: r, ready: make(chan struct{}),
		survey: true, replicas: map[string]struct{}{},
	}
}

// learnLocked takes note of a position, and reports whether it shows that a
// new epoch began since the last one.
func (t *topic) learnLocked(at ws.Position) bool {
	if t.at.Epoch == at.Epoch {
		t.at.Seq = max(t.at.Seq, at.Seq)
		return false
	}
	renewed := t.at.Epoch != ""
	t.at = at
	t.delivered, t.expected, t.based = 0, 0, false
	return renewed
}

// checkLocked compares the log's head with what was announced, and reports
// whether something is missing. An announcement has from one check to the
// next to arrive.
func (t *topic) checkLocked(head uint64) bool {
	t.baseLocked(head)
	missed := t.delivered < t.expected
	t.delivered = max(t.delivered, t.expected)
	t.expected = head
	return missed
}

// owedLocked reports whether announcements that the last check knew of have
// not arrived.
func (t *topic) owedLocked() bool { return t.delivered < t.expected || t.news.owes() }

// baseLocked takes what is in the log now for delivered, unless it is known
// already where delivery began.
func (t *topic) baseLocked(head uint64) {
	if !t.based {
		t.based = true
		t.delivered = max(t.delivered, head)
	}
}

// finishLocked ends the wait of subscribe.
func (t *topic) finishLocked(err error) {
	if t.confirmed || t.failed != nil {
		return
	}
	t.confirmed, t.failed = err == nil, err
	close(t.ready)
}

// What the tick asks of topics and tells them.

// due returns the topics that there is a reason to check, such as announcements
// that had not come at the last check, and those whose last check is so long
// ago.
func (s *subscriptions) due(every time.Duration) []*topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	var topics []*topic
	for _, t := range s.topics {
		if t.survey || t.owedLocked() || time.Since(t.checked) >= every {
			topics = append(topics, t)
		}
	}
	return topics
}

// takeProlong reports, once each so often, that the lives of the topic's keys
// are to be prolonged.
func (s *subscriptions) takeProlong(t *topic, every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(t.prolonged) < every {
		return false
	}
	t.prolonged = time.Now()
	return true
}

// calm reports whether a glance at the topic will do: the script has checked
// it in this history of Redis' writes, and nothing is due.
func (s *subscriptions) calm(t *topic, history string, every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return history != "" && t.history == history && !t.survey && time.Since(t.prolonged) < every
}

// seenIn notes that the script has checked the topic in this history.
func (s *subscriptions) seenIn(t *topic, history string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.history = history
}

// position is the newest known of the topic.
func (s *subscriptions) position(t *topic) ws.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.at
}

func (s *subscriptions) wantSurvey(t *topic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.survey = true
}

func (s *subscriptions) wantSurveyOf(document string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.topics[document]; t != nil {
		t.survey = true
	}
}

// takeSurvey reports whether a survey is wanted; then it no longer is.
func (s *subscriptions) takeSurvey(t *topic) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := t.survey
	t.survey = false
	return wanted
}

// met adds to the replicas known to have members in the topic.
func (s *subscriptions) met(t *topic, replicas map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for replica := range replicas {
		t.replicas[replica] = struct{}{}
	}
}

func (s *subscriptions) forget(t *topic, replicas map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for replica := range replicas {
		delete(t.replicas, replica)
	}
}

// others returns where each replica but self has members.
func (s *subscriptions) others(topics []*topic, self string) map[string][]*topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	where := map[string][]*topic{}
	for _, t := range topics {
		for replica := range t.replicas {
			if replica != self {
				where[replica] = append(where[replica], t)
			}
		}
	}
	return where
}
