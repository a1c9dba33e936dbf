package gateway

import (
	"mime"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// coding is a content coding (RFC 9110, 8.4) that a file may lie ready in, as
// a sibling whose name has one more suffix: app.js, app.js.br.
type coding struct{ name, suffix string }

// codings in the order of preference among those a client likes equally well:
// the smallest result first.
var codings = []coding{{"br", ".br"}, {"zstd", ".zst"}, {"gzip", ".gz"}}

// siblings remembers for a moment which codings of a file there are, so that
// a request costs no look at the disk for each that could be. Safe for
// concurrent use.
type siblings struct {
	mu    sync.Mutex // a leaf
	known map[string]siblingSet
}

// siblingSet is what was found: one bit for each of codings.
type siblingSet struct {
	set     uint8
	checked time.Time
}

// siblingsKept bounds the memory; past it everything is looked up again.
const siblingsKept = 4096

// of returns the codings that lie beside a file, as of a second ago.
func (s *siblings) of(root *openRoot, name string) uint8 {
	now := time.Now()
	s.mu.Lock()
	k, ok := s.known[name]
	s.mu.Unlock()
	if ok && now.Sub(k.checked) < rootCheckEvery {
		return k.set
	}
	k = siblingSet{checked: now}
	for i, c := range codings {
		if info, err := root.Stat(name + c.suffix); err == nil && info.Mode().IsRegular() {
			k.set |= 1 << i
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= siblingsKept {
		s.known = map[string]siblingSet{}
	}
	s.known[name] = k
	return k.set
}

// coded replaces a file by its sibling in the coding that the client likes
// best, if there is one, and sets the headers that go with it. The type stays
// that of the file itself.
func (f *fileServer) coded(w http.ResponseWriter, r *http.Request, file *found) {
	set := f.siblings.of(file.root, file.name)
	if set == 0 {
		return
	}
	h := w.Header()
	h.Add("Vary", "Accept-Encoding") // for the plain form too: a cache must not give it to those who could have less
	i := chooseCoding(r.Header["Accept-Encoding"], set)
	if i < 0 {
		return
	}
	other, info, err := openRegular(file.root, file.name+codings[i].suffix)
	if err != nil {
		return // it has gone since; the plain form is as good
	}
	if h["Content-Type"] = []string{file.contentType()}; h["Content-Type"][0] == "" {
		delete(h, "Content-Type")
		_ = other.Close()
		return // unknown: what is inside cannot be told from its coded form
	}
	_ = file.Close()
	file.File, file.info, file.coding = other, info, codings[i].name
	h.Set("Content-Encoding", file.coding)
}

// contentType is the media type by the file's name, or else by its beginning.
func (f *found) contentType() string {
	if t := mime.TypeByExtension(path.Ext(f.name)); t != "" {
		return t
	}
	var start [512]byte // as much as DetectContentType looks at
	n, err := f.ReadAt(start[:], 0)
	if n == 0 && err != nil {
		return ""
	}
	return http.DetectContentType(start[:n])
}

// chooseCoding returns the index in codings of the member of set that the
// Accept-Encoding headers (RFC 9110, 12.5.3) rank highest, or -1 when the
// plain form ranks higher or none is acceptable. Without a header nothing but
// the plain form is sent.
func chooseCoding(headers []string, set uint8) int {
	if len(headers) == 0 {
		return -1
	}
	quality := func(name string) (q float64, named bool) {
		for _, line := range headers {
			for item := range strings.SplitSeq(line, ",") {
				token, params, _ := strings.Cut(item, ";")
				switch token = strings.TrimSpace(token); {
				case strings.EqualFold(token, name), name == "gzip" && strings.EqualFold(token, "x-gzip"):
					return qualityOf(params), true
				case token == "*":
					q, named = qualityOf(params), true // unless the name comes yet
				}
			}
		}
		return q, named
	}
	best, bestQ := -1, 0.0
	for i, c := range codings {
		if set&(1<<i) == 0 {
			continue
		}
		if q, _ := quality(c.name); q > bestQ {
			best, bestQ = i, q
		}
	}
	// The plain form is as good as any coding unless a rank says otherwise;
	// without one it is what is left when nothing else is acceptable.
	if plain, named := quality("identity"); named && plain > bestQ {
		return -1
	}
	return best
}

// qualityOf reads the weight among a token's parameters; 1 without one, 0 for
// one that is malformed: what is not understood is not sent.
func qualityOf(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		k, v, ok := strings.Cut(strings.TrimSpace(p), "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(k), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}

// lengthWriter gives a whole file the length that http.ServeContent leaves
// out when there is a Content-Encoding: without one it could not be sent by
// sendfile.
type lengthWriter struct {
	*exchange
	size int64
}

func (w lengthWriter) WriteHeader(status int) {
	if status == http.StatusOK {
		w.Header().Set("Content-Length", strconv.FormatInt(w.size, 10))
	}
	w.exchange.WriteHeader(status)
}

// found is a file that is about to be served.
type found struct {
	*os.File
	root   *openRoot
	name   string // below the root
	info   os.FileInfo
	coding string // "" for the file as it is
}
