package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
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
)

func (f *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		f.answer(w, r, problem.Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "Files are read with GET and HEAD."})
		return
	}
	clean, _ := cleanPath(r.URL.Path) // the router has refused what is not clean
	name := strings.TrimPrefix(strings.TrimPrefix(clean, f.prefix), "/")
	file, info, err := f.open(name, clean)
	if errors.Is(err, fs.ErrNotExist) && f.cfg.SPA && !errors.Is(err, errHidden) && isPage(r, name) {
		file, info, err = f.open("index.html", "")
	}
	switch {
	case errors.Is(err, errDirectory):
		redirectToDirectory(w, r, clean)
		return
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid):
		f.answer(w, r, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "There is no such file."})
		return
	case errors.Is(err, fs.ErrPermission):
		f.answer(w, r, problem.Problem{Status: http.StatusForbidden, Code: "forbidden", Detail: "The file may not be read."})
		return
	case err != nil:
		f.g.log.Error("files", "err", err)
		f.answer(w, r, problem.Problem{Status: http.StatusInternalServerError, Code: "internal"})
		return
	}
	defer file.Close()
	w.Header().Set("Etag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	http.ServeContent(w, r, info.Name(), info.ModTime(), file)
}

func (f *fileServer) answer(w http.ResponseWriter, r *http.Request, p problem.Problem) {
	p.RequestID = r.Header.Get(requestIDHeader)
	problem.Respond(w, r, p)
}

// open returns the regular file that a name below the route stands for; a
// directory stands for its index.html if the request's path ends in a slash,
// and is errDirectory otherwise. Whatever is not there to be served, a way
// out of the root among it, matches fs.ErrNotExist.
func (f *fileServer) open(name, requested string) (*os.File, fs.FileInfo, error) {
	if isHidden(name) {
		return nil, nil, errHidden
	}
	trimmed := strings.TrimSuffix(name, "/")
	wantsDir := name == "" || trimmed != name
	if trimmed == "" {
		trimmed = "."
	}
	if !fs.ValidPath(trimmed) || strings.Contains(trimmed, `\`) {
		return nil, nil, fs.ErrNotExist
	}
	root := f.dir()
	info, err := root.Stat(trimmed)
	switch {
	case err != nil:
		return nil, nil, absent(err)
	case info.IsDir() && !wantsDir, name == "" && !strings.HasSuffix(requested, "/"):
		if _, err := root.Stat(path.Join(trimmed, "index.html")); err != nil {
			return nil, nil, absent(err) // no listing, so nothing to redirect to
		}
		return nil, nil, errDirectory
	case info.IsDir():
		trimmed = path.Join(trimmed, "index.html")
	case wantsDir:
		return nil, nil, fs.ErrNotExist
	}
	return openRegular(root, trimmed)
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
		err = fs.ErrNotExist
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
