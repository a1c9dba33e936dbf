package webapp

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/seed-6230208e/tandem/internal/problem"
)

//go:embed static
var staticFiles embed.FS

// asset is one static file, held in memory as it is in the binary anyway.
type asset struct {
	content     []byte
	contentType string
	hash        string // of the content: its ETag, and the version in its URL
}

// assets by path below /static/; fixed after initialization.
var assets = loadAssets()

// contentTypes says what mime.TypeByExtension leaves to the machine's tables.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
	".ts":  "text/plain; charset=utf-8",
}

func loadAssets() map[string]asset {
	all := make(map[string]asset)
	entries, err := fs.ReadDir(staticFiles, "static")
	if err != nil {
		panic(err) // the binary was built without its files
	}
	for _, e := range entries {
		content, err := fs.ReadFile(staticFiles, "static/"+e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		all[e.Name()] = asset{content, contentTypes[path.Ext(e.Name())], hex.EncodeToString(sum[:8])}
	}
	return all
}

// assetURL is the address of a static file, with its version.
func assetURL(name string) string { return "/static/" + name + "?v=" + assets[name].hash }

func serveAsset(w http.ResponseWriter, r *http.Request) {
	file, ok := assets[r.URL.Path[len("/static/"):]]
	if !ok {
		problem.Respond(w, r, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "There is no such file."})
		return
	}
	file.serve(w, r)
}

func serveFavicon(w http.ResponseWriter, r *http.Request) { assets["logo.svg"].serve(w, r) }

// serve lets a versioned address be kept for ever, and any other be asked
// for again: modules import each other without a version.
func (f asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("ETag", `"`+f.hash+`"`)
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == f.hash {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
