// Command edge serves what the gateway is measured against: a bare
// httputil.ReverseProxy or a bare http.FileServer. See run.sh beside it.
package main

import (
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address, host:port")
	proxy := flag.String("proxy", "", "URL of the server behind a bare reverse proxy")
	files := flag.String("files", "", "directory of a bare file server")
	flag.Parse()

	var handler http.Handler = http.FileServer(http.Dir(*files))
	if *proxy != "" {
		target, err := url.Parse(*proxy)
		if err != nil {
			log.Fatal(err)
		}
		handler = &httputil.ReverseProxy{
			Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
			Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(target); pr.SetXForwarded() },
		}
	}
	log.Fatal(http.ListenAndServe(*listen, handler))
}
