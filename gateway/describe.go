package gateway

import (
	"strings"
)

// RouteInfo is one line of the effective table of routes.
type RouteInfo struct {
	Listener string   `json:"listener"` // address as configured
	TLS      bool     `json:"tls"`
	Host     string   `json:"host"`    // "" any
	Path     string   `json:"path"`    // prefix; "" for raw TCP
	Methods  []string `json:"methods"` // none: any
	Kind     string   `json:"kind"`    // "upstream", "files", "redirect", "tcp", or a name in Config.Handlers
	To       []string `json:"to"`      // targets, or the directory
	Login    string   `json:"login"`   // of an upstream
}

// Describe lists the routes of valid listeners in the order in which they are
// tried.
func Describe(listeners []Listener) []RouteInfo {
	var table []RouteInfo
	for _, l := range listeners {
		line := RouteInfo{Listener: l.Address, TLS: l.TLS != nil}
		switch {
		case l.TCP != nil:
			line.Kind, line.To = kindTCP, l.TCP.targets()
			table = append(table, line)
		case l.Redirect != "":
			line.Kind, line.Path, line.To = kindRedirect, "/", []string{l.Redirect}
			table = append(table, line)
		}
		for _, r := range l.effectiveRoutes() {
			line := line
			line.Host, line.Path, line.Methods = strings.ToLower(r.Host), "/"+strings.TrimPrefix(r.Path, "/"), r.Methods
			switch {
			case r.Upstream != nil:
				up := r.Upstream.withDefaults()
				line.Kind, line.To, line.Login = kindUpstream, up.Targets, up.Login
			case r.Files != nil:
				line.Kind, line.To = kindFiles, []string{r.Files.Root}
			default:
				line.Kind = r.Use
			}
			table = append(table, line)
		}
	}
	return table
}
