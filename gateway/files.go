package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// fileServer serves one directory. Safe for concurrent use.
type fileServer struct {
	// Fixed after construction.
	g      *Gateway
	prefix string // of the route, without the slash at its end
	cfg    Files

	siblings siblings

	current atomic.Pointer[openRoot]
	checked atomic.Int64 // when somebody last looked whether it still is current, Unix nanoseconds
}

// openRoot is a directory, and what it was when it was opened.
type openRoot struct {
	*os.Root
	info fs.FileInfo
}

func newFileServer(g *Gateway, prefix string, cfg Files) (*fileServer, error) {
	info, err := os.Stat(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	root, err := os.OpenRoot(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	f := &fileServer{g: g, prefix: prefix, cfg: cfg}
	f.current.Store(&openRoot{root, info})
	return f, nil
}

// rootCheckEvery bounds how long a directory that was replaced as a whole, as
// deployments do, is still served.
const rootCheckEvery = time.Second

// dir returns the directory that stands at the root's path, as of a second
// ago. One that was replaced is closed when its last user has let it go:
// os.Root has a finalizer.
func (f *fileServer) dir() *openRoot {
	current := f.current.Load()
	last, now := f.checked.Load(), time.Now().UnixNano()
	if now-last < int64(rootCheckEvery) || !f.checked.CompareAndSwap(last, now) {
		return current
	}
	info, err := os.Stat(f.cfg.Root)
	if err != nil || os.SameFile(info, current.info) {
		return current
	}
	root, err := os.OpenRoot(f.cfg.Root)
	if err != nil {
		return current
	}
	next := &openRoot{root, info}
	f.current.Store(next)
	return next
}

var (
	errHidden    = fmt.Errorf("hidden: %w", fs.ErrNotExist)
	errDirectory = errors.New("is a directory")

	errNotRegular = fmt.Errorf("not a regular file: %w", fs.ErrNotExist)
)

func (f *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		f.answer(w, r, problem.Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "Files are read with GET and HEAD."})
		return
	}
	clean, _ := cleanPath(r.URL.Path) // the router has refused what is not clean
	name := strings.TrimPrefix(strings.TrimPrefix(clean, f.prefix), "/")
	file, err := f.open(name, clean)
	if errors.Is(err, fs.ErrNotExist) && f.cfg.SPA && !errors.Is(err, errHidden) && isPage(r, name) {
		file, err = f.open("index.html", "")
	}
	switch {
	case errors.Is(err, errDirectory):
		redirectToDirectory(w, r, clean)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid):
		f.answer(w, r, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "There is no such file."})
	case errors.Is(err, fs.ErrPermission):
		f.answer(w, r, problem.Problem{Status: http.StatusForbidden, Code: "forbidden", Detail: "The file may not be read."})
	case err != nil:
		f.g.log.Error("files", "err", err)
		f.answer(w, r, problem.Problem{Status: http.StatusInternalServerError, Code: "internal"})
	default:
		defer file.Close()
		f.send(w, r, file)
	}
}

// send answers with a file, or the range or the news of it that was asked for.
func (f *fileServer) send(w http.ResponseWriter, r *http.Request, file *found) {
	f.coded(w, r, file)
	h := w.Header()
	h["Etag"] = []string{file.etag()}
	if control := f.cacheControl(file.name); control != "" {
		h["Cache-Control"] = []string{control}
	}
	if ranges := r.Header.Get("Range"); ranges != "" {
		normalRange(r, ranges)
	}
	if x, ok := w.(*exchange); ok && file.coding != "" {
		w = lengthWriter{x, file.info.Size()}
	}
	http.ServeContent(w, r, path.Base(file.name), file.info.ModTime(), file)
}

// normalRange spells the unit of a Range header the way http.ServeContent
// expects it, and takes one away that is to be ignored (RFC 9110, 14.2): in
// another unit, or of another method than GET.
func normalRange(r *http.Request, ranges string) {
	unit, set, ok := strings.Cut(ranges, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || r.Method != http.MethodGet {
		delete(r.Header, "Range")
		return
	}
	if zeros, ok := strings.CutPrefix(strings.TrimSpace(set), "-0"); ok && strings.Trim(zeros, "0") == "" {
		set = "9223372036854775807-" // the last 0 bytes: cannot be satisfied, which it takes for an empty range
	}
	r.Header.Set("Range", "bytes="+set)
}

// etag is a strong validator: it changes with the file, and each coding of it
// has its own.
func (f *found) etag() string {
	b := make([]byte, 0, 48)
	b = append(b, '"')
	b = strconv.AppendInt(b, f.info.ModTime().UnixNano(), 16)
	b = append(b, '-')
	b = strconv.AppendInt(b, f.info.Size(), 16)
	if f.coding != "" {
		b = append(append(b, '-'), f.coding...)
	}
	return string(append(b, '"'))
}

// cacheControl is what the first rule that matches a file says.
func (f *fileServer) cacheControl(name string) string {
	for _, rule := range f.cfg.Cache {
		if rule.matches(name) {
			return rule.Control
		}
	}
	return ""
}

func (r CacheRule) matches(name string) bool {
	if strings.HasSuffix(r.Match, "/") {
		return strings.HasPrefix(name, strings.TrimPrefix(r.Match, "/"))
	}
	ok, err := path.Match(r.Match, path.Base(name))
	return ok && err == nil
}

func (f *fileServer) answer(w http.ResponseWriter, r *http.Request, p problem.Problem) {
	p.RequestID = r.Header.Get(requestIDHeader)
	problem.Respond(w, r, p)
}

// open returns the regular file that a name below the route stands for; a
// directory stands for its index.html if the request's path ends in a slash,
// and is errDirectory otherwise. Whatever is not there to be served, a way
// out of the root among it, matches fs.ErrNotExist.
func (f *fileServer) open(name, requested string) (*found, error) {
	if isHidden(name) {
		return nil, errHidden
	}
	trimmed := strings.TrimSuffix(name, "/")
	wantsDir := name == "" || trimmed != name
	if trimmed == "" {
		trimmed = "."
	}
	if !fs.ValidPath(trimmed) || strings.Contains(trimmed, `\`) {
		return nil, fs.ErrNotExist
	}
	root := f.dir()
	if !wantsDir {
		file, info, err := openRegular(root, trimmed)
		if err == nil || !errors.Is(err, errNotRegular) {
			return &found{File: file, root: root, name: trimmed, info: info}, err
		}
	}
	info, err := root.Stat(trimmed)
	switch {
	case err != nil:
		return nil, absent(err)
	case !info.IsDir():
		return nil, fs.ErrNotExist
	}
	index := path.Join(trimmed, "index.html")
	file, info, err := openRegular(root, index)
	if err == nil && (!wantsDir || name == "" && !strings.HasSuffix(requested, "/")) {
		_ = file.Close()
		return nil, errDirectory // only if there is something to redirect to
	}
	return &found{File: file, root: root, name: index, info: info}, err
}

// openRegular opens a file but nothing that opening or reading could block
// on, which what stood there a moment ago says nothing about.
func openRegular(root *openRoot, name string) (*os.File, fs.FileInfo, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, absent(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// absent folds the ways in which a name is not there into fs.ErrNotExist: a
// file where a directory was expected, a name too long, loops of links, and
// links that lead out of the root, of which os.Root has no error to compare.
func absent(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
		errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENOMEM):
		return err
	}
	return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
}

// isHidden reports whether a segment starts with a dot: version control,
// passwords, editors' leavings. /.well-known/ (RFC 8615) is public.
func isHidden(name string) bool {
	name = strings.TrimPrefix(name, ".well-known/")
	return strings.HasPrefix(name, ".") || strings.Contains(name, "/.")
}

// isPage reports whether a name that is no file may be a page of a
// single-page application.
func isPage(r *http.Request, name string) bool {
	return !strings.Contains(path.Base("/"+name), ".") || problem.PrefersHTML(r)
}

// redirectToDirectory adds the slash that relative links in the directory's
// index need. The location is relative: it cannot lead to another site.
func redirectToDirectory(w http.ResponseWriter, r *http.Request, clean string) {
	to := "./" + url.PathEscape(path.Base(clean)) + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusMovedPermanently)
}
