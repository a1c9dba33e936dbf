package gateway

import (
	"bytes"
	"net/http"
	"sync/atomic"
)

// framing follows where the requests on a plain HTTP/1 connection begin and
// end, in its bytes as they are read. It is there to tell what net/http keeps
// to itself: that a request says in two ways how long it is. net/http goes by
// Transfer-Encoding and takes Content-Length out before a handler sees it; a
// proxy in front may have gone by the other, and then what was a body to it
// is a request to the gateway (RFC 9112, 6.1 and 11.2).
//
// What net/http accepts it reads as net/http does. What is malformed it may
// read as anything: net/http refuses that, and the connection ends there.
type framing struct {
	heads     atomic.Int64 // that have come to their end
	ambiguous atomic.Int64 // number of the one that is, and the last that is followed; 0: none
	served    int64        // owned by the handlers, of which there is one at a time

	// Owned by whoever reads the connection, one at a time.
	at      position
	field   position // where the value of the present field goes on after a fold
	last    byte     // of the request line: the minor version
	length  bool     // the head has a Content-Length
	coding  bool     // the head has a Transfer-Encoding
	matched uint8    // bytes of name
	name    string   // that the present field may have
	left    uint64   // of the body or chunk; in a head or a chunk's size, the number so far
}

// position is where in a request a connection is.
type position uint8

const (
	atRequest position = iota // before the request line
	inRequest
	atField // at the beginning of a line in a head
	inName
	inLength // in the value of a Content-Length
	inField  // in anything else up to the line's end
	inBody   // with a Content-Length
	atSize   // in the digits of a chunk's size
	inSize   // in the rest of its line
	inChunk  // in its data or the line end behind
	atTrailer
	inTrailer
	nowhere // behind an ambiguous head
)

const (
	lengthName = "content-length:"
	codingName = "transfer-encoding:"

	// unending is a body so long that nobody sees what follows it. Numbers stop
	// growing there, one digit before they could overflow.
	unending = 1 << 59
)

// follow goes on by what was read.
func (f *framing) follow(p []byte) {
	for len(p) > 0 {
		switch f.at {
		case atRequest:
			p = f.beginRequest(p)
		case inRequest:
			p = f.requestLine(p)
		case atField:
			p = f.beginField(p)
		case inName:
			p = f.fieldName(p)
		case inLength:
			p = f.lengthValue(p)
		case inField:
			p = f.skipLine(p, atField)
		case inBody:
			p = f.skipData(p, atRequest)
		case atSize:
			p = f.chunkSize(p)
		case inSize:
			p = f.endSize(p)
		case inChunk:
			p = f.skipData(p, atSize)
		case atTrailer:
			p = f.beginTrailer(p)
		case inTrailer:
			p = f.skipLine(p, atTrailer)
		default:
			return
		}
	}
}

// beginRequest leaves out line ends, of which net/http takes some after a
// POST.
func (f *framing) beginRequest(p []byte) []byte {
	if p[0] == '\r' || p[0] == '\n' {
		return p[1:]
	}
	f.at, f.field = inRequest, inField
	f.last, f.length, f.coding, f.left = 0, false, false, 0
	return p
}

func (f *framing) requestLine(p []byte) []byte {
	line, rest, ended := bytes.Cut(p, newline)
	if line = bytes.TrimRight(line, "\r"); len(line) > 0 {
		f.last = line[len(line)-1]
	}
	if ended {
		f.at = atField
	}
	return rest
}

func (f *framing) beginField(p []byte) []byte {
	switch lower(p[0]) {
	case '\n':
		f.endHead()
		return p[1:]
	case '\r':
		return p[1:]
	case ' ', '\t':
		f.at = f.field
	case lengthName[0]:
		f.at, f.name, f.matched = inName, lengthName, 0
	case codingName[0]:
		f.at, f.name, f.matched = inName, codingName, 0
	default:
		f.at, f.field = inField, inField
	}
	return p
}

// fieldName compares a field's name with the one that it may have, without
// what stands between the name and the colon, which net/http refuses.
func (f *framing) fieldName(p []byte) []byte {
	for i, c := range p {
		if lower(c) != f.name[f.matched] {
			f.at, f.field = inField, inField
			return p[i:]
		}
		f.matched++
		if int(f.matched) < len(f.name) {
			continue
		}
		if f.name == codingName {
			f.coding, f.at = true, inField
		} else {
			f.length, f.at, f.left = true, inLength, 0
		}
		f.field = f.at
		return p[i+1:]
	}
	return nil
}

func (f *framing) lengthValue(p []byte) []byte {
	for i, c := range p {
		switch {
		case c == '\n':
			f.at = atField
			return p[i+1:]
		case '0' <= c && c <= '9':
			f.digit(10, c-'0')
		}
	}
	return nil
}

// endHead decides how the body is framed. HTTP/1.0 has no Transfer-Encoding:
// a request with one went through something that did not know it.
func (f *framing) endHead() {
	switch {
	case f.coding && (f.length || f.last == '0'):
		f.at = nowhere
		f.ambiguous.Store(f.heads.Load() + 1)
	case f.coding:
		f.at, f.left = atSize, 0
	case f.left > 0:
		f.at = inBody
	default:
		f.at = atRequest
	}
	f.heads.Add(1) // the last, since handlers look here first
}

func (f *framing) chunkSize(p []byte) []byte {
	for i, c := range p {
		switch c = lower(c); {
		case '0' <= c && c <= '9':
			f.digit(16, c-'0')
		case 'a' <= c && c <= 'f':
			f.digit(16, c-'a'+10)
		default:
			f.at = inSize
			return p[i:]
		}
	}
	return nil
}

func (f *framing) endSize(p []byte) []byte {
	p = f.skipLine(p, inChunk)
	switch {
	case f.at != inChunk:
	case f.left == 0:
		f.at = atTrailer
	default:
		f.left += uint64(len("\r\n"))
	}
	return p
}

func (f *framing) beginTrailer(p []byte) []byte {
	switch p[0] {
	case '\n':
		f.at = atRequest
		return p[1:]
	case '\r':
		return p[1:]
	default:
		f.at = inTrailer
		return p
	}
}

// skipLine goes to the line's end and, once that has come, to the next place.
func (f *framing) skipLine(p []byte, next position) []byte {
	_, rest, ended := bytes.Cut(p, newline)
	if ended {
		f.at = next
	}
	return rest
}

// skipData goes to the end of a body or chunk and, once that has come, to the
// next place.
func (f *framing) skipData(p []byte, next position) []byte {
	n := min(f.left, uint64(len(p)))
	if f.left -= n; f.left == 0 {
		f.at = next
	}
	return p[n:]
}

func (f *framing) digit(base uint64, d byte) {
	if f.left < unending {
		f.left = f.left*base + uint64(d)
	}
}

var newline = []byte("\n")

// lower is for ASCII letters.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// framed is what is known of how a request is framed.
type framed uint8

const (
	framedOnce  framed = iota
	framedTwice        // to be refused
	framedUnseen
)

// next tells of the next request, in the order in which handlers get them,
// and is asked once by each. A nil framing has seen none: under TLS the bytes
// of a connection are not those of its requests, and between the two there is
// no place to look, since net/http speaks HTTP/2 on a *tls.Conn alone.
func (f *framing) next() framed {
	if f == nil {
		return framedUnseen
	}
	f.served++
	heads := f.heads.Load()
	switch {
	case f.served > heads:
		return framedUnseen
	case f.served == f.ambiguous.Load():
		return framedTwice
	default:
		return framedOnce
	}
}

// endsConnection reports whether a request is the last of its connection: it
// is framed twice or, for all that is known, may be. What is sent on is
// framed once; what follows on the connection is not believed.
func (d framed) endsConnection(r *http.Request) bool {
	return d == framedTwice ||
		d == framedUnseen && r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0)
}
