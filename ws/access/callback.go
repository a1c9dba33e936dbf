package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/seed-6230208e/tandem/ws"
)

const (
	questions  = 32      // to the application at once; others wait for their turn
	maxAnswer  = 4 << 10 // bytes of an answer
	maxEntries = 100_000 // answers that are kept; beyond, each is asked for
)

// callback asks the application, with POST and a JSON object of user, session
// (its handle), document and action. 2xx with {"allow": true|false} is an
// answer, and so is 403, a no. Everything else is none: other statuses,
// redirects, answers that are longer than maxAnswer, silence.
//
// An answer holds for as long as cache says. When it cannot be renewed, a yes
// holds for as long once more: an application that restarts does not empty its
// documents. After that, and whatever the answer was that nobody got, the
// question stays open and nobody gets in.
type callback struct {
	// Fixed after construction.
	client  *http.Client
	url     string
	cache   time.Duration
	timeout time.Duration
	log     *slog.Logger
	asked   *prometheus.CounterVec // result
	took    prometheus.Histogram

	failing atomic.Bool // the last question had no answer

	turns   chan struct{}      // as many tokens as questions may be under way
	flights singleflight.Group // by question: one under way

	mu      sync.Mutex // guards the following
	answers map[question]answer
	swept   time.Time
}

// question is what is asked; it has no session ID in it.
type question struct {
	User     string    `json:"user"`
	Session  string    `json:"session"`
	Document string    `json:"document"`
	Action   ws.Action `json:"action"`
}

func (q question) String() string {
	return q.User + "\x00" + q.Session + "\x00" + q.Document + "\x00" + string(q.Action)
}

type answer struct {
	allow bool
	until time.Time // it is asked again
	final time.Time // a yes that was not renewed is worth nothing
}

func newCallback(cfg Config, log *slog.Logger) (*callback, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("URL: http://… or https://… is wanted")
	}
	cb := &callback{
		url: cfg.URL, cache: cfg.Cache, timeout: cfg.Timeout, log: log,
		turns:   make(chan struct{}, questions),
		answers: map[question]answer{},
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_authorize_requests_total", Help: "Questions to documents.authorize.url, by result.",
		}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_authorize_seconds", Help: "Time that documents.authorize.url took to answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
	}
	if cb.cache == 0 {
		cb.cache = 10 * time.Second
	}
	if cb.timeout == 0 {
		cb.timeout = 2 * time.Second
	}
	transport := cfg.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: questions,
			IdleConnTimeout:     90 * time.Second,
			ForceAttemptHTTP2:   true,
		}
	}
	cb.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.Metrics != nil {
		for _, c := range []prometheus.Collector{cb.asked, cb.took} {
			if err := cfg.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("metrics: %w", err)
			}
		}
	}
	return cb, nil
}

func (cb *callback) authorize(ctx context.Context, a ws.Access) (time.Time, error) {
	q := question{a.Session.UserID(), a.Session.Handle(), a.Document, a.Action}
	known, ok := cb.recall(q)
	if !ok {
		// Run by one of those who ask, and not ended with it: the others wait
		// for the answer too.
		result, err, _ := cb.flights.Do(q.String(), func() (any, error) {
			if known, ok := cb.recall(q); ok { // answered just now
				return known, nil
			}
			return cb.renew(context.WithoutCancel(ctx), q)
		})
		if err != nil {
			return time.Time{}, err
		}
		known = result.(answer)
	}
	if !known.allow {
		return time.Time{}, fmt.Errorf("%w by the application", ws.ErrForbidden)
	}
	return known.until, nil
}

// recall returns an answer that holds.
func (cb *callback) recall(q question) (answer, bool) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	known, ok := cb.answers[q]
	return known, ok && time.Now().Before(known.until)
}

// renew asks and remembers.
func (cb *callback) renew(ctx context.Context, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, cb.timeout)
	defer cancel()
	began := time.Now()
	allow, err := cb.ask(ctx, q)
	cb.took.Observe(time.Since(began).Seconds())
	if err != nil {
		cb.asked.WithLabelValues("failed").Inc()
		if !cb.failing.Swap(true) { // once, not for each of a crowd
			cb.log.Warn("the application does not say who may use documents", "err", err)
		}
		return cb.stretch(q, err)
	}
	cb.asked.WithLabelValues(map[bool]string{true: "allowed", false: "denied"}[allow]).Inc()
	cb.failing.Store(false)
	return cb.remember(q, allow), nil
}

func (cb *callback) remember(q question, allow bool) answer {
	now := time.Now()
	fresh := answer{allow, now.Add(cb.cache), now.Add(2 * cb.cache)}
	cb.mu.Lock()
	defer cb.mu.Unlock()
	cb.sweepLocked(now)
	if _, kept := cb.answers[q]; kept || len(cb.answers) < maxEntries {
		cb.answers[q] = fresh
	}
	return fresh
}

// stretch lets a yes hold a little longer that could not be renewed because
// of err, or returns err.
func (cb *callback) stretch(q question, err error) (answer, error) {
	now := time.Now()
	cb.mu.Lock()
	defer cb.mu.Unlock()
	old := cb.answers[q]
	left := old.final.Sub(now)
	if !old.allow || left <= 0 {
		return answer{}, err
	}
	old.until = now.Add(min(left, max(cb.cache/4, cb.timeout)))
	cb.answers[q] = old
	return old, nil
}

// sweepLocked forgets, once in a while, the answers that are worth nothing.
func (cb *callback) sweepLocked(now time.Time) {
	if now.Sub(cb.swept) < cb.cache {
		return
	}
	cb.swept = now
	for q, a := range cb.answers {
		if now.After(a.final) {
			delete(cb.answers, q)
		}
	}
}

// ask puts one question. Errors wrap ws.ErrUnavailable.
func (cb *callback) ask(ctx context.Context, q question) (allow bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: authorize: %w", ws.ErrUnavailable, err)
		}
	}()
	select {
	case cb.turns <- struct{}{}:
		defer func() { <-cb.turns }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	body, err := json.Marshal(q)
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cb.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "tandem")
	res, err := cb.client.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	return readAnswer(res)
}

// readAnswer reads all of the answer, so that its connection can be used
// again.
func readAnswer(res *http.Response) (allow bool, err error) {
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case res.StatusCode == http.StatusForbidden:
		return false, nil
	case err != nil:
		return false, err
	case len(data) > maxAnswer:
		return false, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	case res.StatusCode/100 != 2:
		return false, fmt.Errorf("answered with status %d; 200 or 403 is wanted", res.StatusCode)
	}
	var body struct {
		Allow *bool `json:"allow"`
	}
	if err := json.Unmarshal(data, &body); err != nil || body.Allow == nil {
		return false, errors.New(`the answer is not {"allow": true|false}`)
	}
	return *body.Allow, nil
}
