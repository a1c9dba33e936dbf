package webapp

import (
	"fmt"
	"image/color"
	"net/http"
	"net/url"
	"strings"

	"github.com/boombuler/barcode/qr"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// pairView is the page of a pair: both sides, or one of them with an
// invitation to the other for a second device.
type pairView struct {
	ID    string
	Sides []pairSide
}

// pairSide is one side of a pair, as seen from the page.
type pairSide struct {
	Name string // left or right
	Here bool   // the page opens it
	Link string // page that opens this side alone
	QR   string // image of the link
}

// Both reports whether the page opens both sides.
func (v pairView) Both() bool { return v.Sides[0].Here && v.Sides[1].Here }

var badSide = problem.Problem{
	Status: http.StatusBadRequest, Code: "bad_side", Detail: "side: allowed are left and right, or none for both.",
}

// pair is public: whether its sockets need a login is configured there, and
// the page says what they answer.
func (a *app) pair(w http.ResponseWriter, r *http.Request) {
	id, side, refusal := pairIn(r)
	if refusal != nil {
		a.fail(w, r, *refusal)
		return
	}
	s, err := a.session(w, r)
	if err != nil {
		a.failure(w, r, err)
		return
	}
	view := pairView{ID: id}
	for _, name := range []string{"left", "right"} {
		view.Sides = append(view.Sides, pairSide{
			Name: name, Here: side == "" || side == name,
			Link: pairPath(id) + "?side=" + name, QR: pairPath(id) + "/qr.svg?side=" + name,
		})
	}
	p := newPage(id, s)
	p.Next = r.URL.EscapedPath()
	if side != "" {
		p.Next += "?side=" + side
	}
	p.Data = view
	a.render(w, r, http.StatusOK, "pair", p)
}

// pairIn reads the pair and the side, which may be missing.
func pairIn(r *http.Request) (id, side string, refusal *problem.Problem) {
	id, side = r.PathValue("id"), r.URL.Query().Get("side")
	switch {
	case !validRoom(id):
		return "", "", &badRoom
	case side != "" && side != "left" && side != "right":
		return "", "", &badSide
	}
	return id, side, nil
}

func pairPath(id string) string { return "/pairs/" + url.PathEscape(id) }

// pairQR is the link to one side, or to both, as an image for a second
// device's camera. It is public and needs no session, as the link does not.
func (a *app) pairQR(w http.ResponseWriter, r *http.Request) {
	id, side, refusal := pairIn(r)
	if refusal != nil {
		a.fail(w, r, *refusal)
		return
	}
	link := publicOrigin(r) + pairPath(id)
	if side != "" {
		link += "?side=" + side
	}
	svg, err := qrSVG(link)
	if err != nil {
		a.failure(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "image/svg+xml")
	_, _ = w.Write(svg) // an error means that the client has gone
}

// publicOrigin is where browsers find this server. Proxies in front may hide
// its scheme and host from it, but not from a page: what the request for an
// image of it says in Referer is true when the browser says in Sec-Fetch-Site
// that the page is of the same origin. Browsers that speak plain HTTP do not
// say so; then it is where the request was sent to, in the words of a trusted
// proxy where there is one.
func publicOrigin(r *http.Request) string {
	if r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		u, err := url.Parse(r.Referer())
		if err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") {
			return u.Scheme + "://" + u.Host
		}
	}
	if r.TLS != nil || r.URL.Scheme == "https" {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// quietZone is the margin that ISO/IEC 18004 asks for around a QR code, in
// modules.
const quietZone = 4

// qrSVG draws text as a QR code: dark on light whatever the page's colours,
// as some readers know no other.
func qrSVG(text string) ([]byte, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return nil, fmt.Errorf("QR code: %w", err)
	}
	size := code.Bounds().Dx()
	var path strings.Builder
	for y := range size {
		for x := 0; x < size; x++ {
			start := x
			for x < size && isDark(code.At(x, y)) {
				x++
			}
			if x > start {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", start+quietZone, y+quietZone, x-start, x-start)
			}
		}
	}
	side := size + 2*quietZone
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges">`+
		`<path fill="#fff" d="M0 0h%dv%dH0z"/><path d="%s"/></svg>`, side, side, side, side, path.String()), nil
}

func isDark(c color.Color) bool {
	r, _, _, _ := c.RGBA()
	return r < 0x8000
}
