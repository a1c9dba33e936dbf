// Package config is Tandem's configuration: the YAML file, the environment
// variables and flags that override it, and the checks that name every fault
// together with its place.
//
// The struct tags below are the one source of all of it: yaml (key), default,
// auto (a default that depends on other settings, in words), enum, min, max,
// check (see checks), required, flag and doc. docs/CONFIGURATION.md is
// generated from them.
package config

import "time"

// Config is the whole configuration. Load fills every field; the values it
// returns are valid and are not changed afterwards. Paths of files are
// relative to the working directory or absolute, ready to be opened.
type Config struct {
	Redis           string        `yaml:"redis" default:"embedded:" required:"true" flag:"--redis" check:"redis" doc:"Where sessions, documents and everything else that replicas share is kept. One of \"redis://[user:password@]host[:port][/db]\", \"rediss://…\" (TLS), \"redis+sentinel://host1:26379,host2:26379/master[/db]\", \"redis+cluster://host1:7000,host2:7001\" (with rediss+ for TLS), or \"embedded:\": a Redis inside this process that forgets everything when it ends."`
	RedisCheckEvery time.Duration `yaml:"redis_check_every" default:"20s" min:"0s" doc:"A connection that was idle for longer is pinged before it is used, and replaced when that fails. 0s: never."`
	Session         Session       `yaml:"session" doc:"Cookie sessions: their form in Redis and how long they live."`
	Listeners       []Listener    `yaml:"listeners" auto:"one on 127.0.0.1:8080" doc:"The addresses Tandem answers on, and what is behind each."`
	TrustedProxies  []string      `yaml:"trusted_proxies" auto:"none" check:"network" doc:"Balancers and proxies in front of Tandem: networks such as \"10.0.0.0/8\", single addresses, or \"private\" for all networks that are not public. What they say in X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host, or in Forwarded where there is none of these, is believed: about the client's address, TLS and the host. From everybody else it is dropped. See docs/IDENTITY.md."`
	Assertion       Assertion     `yaml:"assertion" doc:"Signed proof of who is logged in, for upstreams that ask for it."`
	Origins         []string      `yaml:"origins" default:"same-origin" check:"origin" doc:"Which pages may open sockets, of documents and pairs alike: \"same-origin\", full origins such as \"https://app.example.test\", or \"*\" for all. A client that sends no Origin is no browser and is let through."`
	Documents       Documents     `yaml:"documents" doc:"Shared documents over WebSockets."`
	Limits          Limits        `yaml:"limits" doc:"What one client may take. Rates are per connection with a burst of twice the rate; counts hold over all replicas; 0: no limit."`
	Pairs           Pairs         `yaml:"pairs" doc:"Pairs of sockets, \"left/ID\" and \"right/ID\"."`
	Webapp          Webapp        `yaml:"webapp" doc:"The web app's pages."`
	Admin           Admin         `yaml:"admin" doc:"The listener for operators: health, metrics, profiles, and the admin API."`
	Drain           Drain         `yaml:"drain" doc:"What happens between SIGTERM and the end of the process."`
	Log             Log           `yaml:"log" doc:"Logs, on standard error."`

	source Source
	places *state
}

// Session is the part of the configuration about cookie sessions.
type Session struct {
	Cookie          string        `yaml:"cookie" auto:"\"__Host-tandem\" when a listener has tls or secure is always, else \"tandem\"" check:"cookie" doc:"Name of the session cookie. Names that begin with \"__Host-\" or \"__Secure-\" need TLS: browsers take them over nothing else."`
	Secure          string        `yaml:"secure" default:"auto" enum:"auto|always" doc:"auto: the cookie is Secure when at least one listener has tls; listeners without tls then never see a session, since browsers do not send it there. always: Secure although no listener has tls, for a TLS-terminating balancer in front."`
	Serializer      string        `yaml:"serializer" default:"json" enum:"json|gob" doc:"How session values are stored. gob is the default of redisstore/v9."`
	KeyPrefix       string        `yaml:"key_prefix" default:"session:" required:"true" check:"key_prefix" doc:"What the Redis keys of session values begin with; \"session:\" is the default of redisstore/v9."`
	HashIDs         bool          `yaml:"hash_ids" default:"false" doc:"Keep the SHA-256 of session IDs in Redis instead of the IDs, so that nobody who reads Redis can take a session over. Applications with redisstore do not find such sessions. Changing it logs everybody out; change it on all replicas at once."`
	SealKeysFile    string        `yaml:"seal_keys_file" auto:"none: values are plain" check:"keys" doc:"File with the keys that session values are encrypted with (AES-256-GCM): 32 random bytes in base64 a line, as from \"openssl rand -base64 32\". The first one encrypts, all decrypt. To change keys, add the new one as the last line and send SIGHUP, or restart, everywhere; then move it to the top and do so again; take the old one out after absolute_timeout. Applications with redisstore cannot read such sessions. Values from before are read, and encrypted when they are written next."`
	IdleTimeout     time.Duration `yaml:"idle_timeout" default:"30m" auto:"30m, or absolute_timeout if that is shorter" min:"1s" doc:"A session without page loads and socket traffic for this long ends."`
	AbsoluteTimeout time.Duration `yaml:"absolute_timeout" default:"12h" auto:"12h, or idle_timeout if that is longer" min:"1s" doc:"A session ends this long after it began or its user logged in, used or not. The cookie of a user who stays logged in when the browser closes lives until then."`
	MaxPerUser      int           `yaml:"max_per_user" default:"0" min:"0" doc:"How many sessions a user may have at a time. A login that makes more ends the oldest others (close reason \"revoked\"). 0: no limit."`
	TouchEvery      time.Duration `yaml:"touch_every" default:"1m" auto:"1m, or a tenth of idle_timeout if that is shorter" min:"0s" doc:"At most one write of the time to live a session and interval. 0s: on every request."`
	VerifyEvery     time.Duration `yaml:"verify_every" default:"5s" auto:"5s, or max_unverified if that is shorter" min:"100ms" max:"10m" doc:"Sockets re-check their sessions this often: the longest time that a missed logout stays unnoticed."`
	MaxUnverified   time.Duration `yaml:"max_unverified" default:"5m" auto:"5m, or verify_every if that is longer" min:"100ms" doc:"When Redis is away for longer, sockets close with 4503."`
	ClientReadable  []string      `yaml:"client_readable" default:"user.name,chat.*" check:"pattern" doc:"Attributes that page scripts may read through the API and sockets; \"*\" stands for any run of characters."`
	ClientWritable  []string      `yaml:"client_writable" default:"chat.*" check:"writable" doc:"Attributes that page scripts may write. Never a pattern that covers \"user.id\" or \"user.name\"."`
}

// Listener is one address. At most one of Routes, Upstream, Files and TCP is
// set; Load puts the web app's routes into one that has none.
type Listener struct {
	Address  string    `yaml:"address" required:"true" check:"address" flag:"--listen" doc:"host:port; without a host, all interfaces. Port 0: any free port."`
	TLS      *TLS      `yaml:"tls" doc:"Serve TLS. Left out: plain."`
	Routes   []Route   `yaml:"routes" auto:"the documents, the pairs and the web app" doc:"What is served where; the first route that matches wins."`
	Upstream *Upstream `yaml:"upstream" doc:"Instead of routes: everything goes to these upstream servers."`
	Files    *Files    `yaml:"files" doc:"Instead of routes: everything is files."`
	TCP      *TCP      `yaml:"tcp" doc:"Instead of routes: no HTTP; bytes are passed to a server as they come."`

	Redirect string `yaml:"redirect" check:"redirect" doc:"Instead of routes: \"https\" sends every request to the same URL over TLS (308), at the port of the first listener with tls; \"https:443\" names the port that clients see."`

	Limits ListenerLimits `yaml:"limits" doc:"What clients may take of this listener."`
}

// ListenerLimits bound what clients may take of one listener.
type ListenerLimits struct {
	Header                Size          `yaml:"header" default:"64KiB" min:"1KiB" max:"16MiB" doc:"Longest head of a request; longer is answered 431. Changing it takes a restart."`
	HeaderTimeout         time.Duration `yaml:"header_timeout" default:"10s" min:"1ms" doc:"Time for a request's head to come. Changing it takes a restart."`
	Body                  Size          `yaml:"body" default:"0" min:"0" doc:"Longest body of a request, unless its route has max_body; longer is answered 413. 0: any."`
	BodyTimeout           time.Duration `yaml:"body_timeout" default:"60s" min:"0s" doc:"Time for each 16KiB of a request's body to come, waiting for an upstream not counted; slower is answered 408. 0s: any."`
	ConnectionsPerAddress int           `yaml:"connections_per_address" default:"0" min:"0" doc:"How many connections one IPv4 address or IPv6 /64 may have; more are closed at once. Those of trusted_proxies have no limit. 0: any."`
}

// TLS names a certificate in PEM form and its key.
type TLS struct {
	Cert string `yaml:"cert" required:"true" check:"file" doc:"File with the certificate and its chain, PEM."`
	Key  string `yaml:"key" required:"true" check:"file" doc:"File with the private key, PEM."`
}

// Route says what answers requests for a host and path prefix. Exactly one
// of Use, Files and Upstream is set.
type Route struct {
	Host     string    `yaml:"host" auto:"any" check:"host" doc:"Requests for this host only, whatever the port; \"*.example.test\" is every name with one more label."`
	Path     string    `yaml:"path" default:"/" required:"true" check:"path" doc:"Requests whose path begins with this, at a segment: \"/assets/\" and \"/assets\" match \"/assets/a\", not \"/assetsb\"."`
	Methods  []string  `yaml:"methods" auto:"all" check:"method" doc:"Requests with these methods only, such as [GET, POST]; HEAD goes with GET."`
	Use      string    `yaml:"use" enum:"documents|pairs|webapp" doc:"A part of Tandem."`
	Files    *Files    `yaml:"files" doc:"Static files."`
	Upstream *Upstream `yaml:"upstream" doc:"Servers of yours."`
	MaxBody  Size      `yaml:"max_body" auto:"limits.body of the listener" min:"0" doc:"Longest body of a request; longer is answered 413."`
	Rate     *Rate     `yaml:"rate" doc:"How often one client, an IPv4 address or IPv6 /64, may ask; more is answered 429 with Retry-After. Each replica counts for itself. Left out: any number."`
}

// Rate bounds the requests of one client on a route.
type Rate struct {
	Requests int           `yaml:"requests" required:"true" min:"1" doc:"How many requests in the time of per."`
	Per      time.Duration `yaml:"per" default:"1s" min:"1ms" doc:"The time that requests counts for."`
	Burst    int           `yaml:"burst" auto:"as many as requests" min:"0" doc:"How many may come at once."`
}

// Files is a directory that is served.
type Files struct {
	Root string `yaml:"root" required:"true" check:"dir" doc:"Directory; what follows the route's path is looked up in it. Nothing outside is served, by symbolic link neither. A file app.js that lies there as app.js.br, app.js.zst or app.js.gz too is sent so to clients that take it."`
	SPA  bool   `yaml:"spa" default:"false" doc:"Answer with the root's index.html where there is no such file, for single-page applications."`

	Cache []CacheRule `yaml:"cache" doc:"What Cache-Control files are sent with; the first rule that matches counts. Left out: none, and browsers ask again by ETag as they see fit."`
}

// CacheRule is the Cache-Control header of some files.
type CacheRule struct {
	Match   string `yaml:"match" required:"true" check:"match" doc:"A directory in the root, with a slash at its end (\"assets/\"), or a pattern for file names (\"*.html\", which is also what spa answers with). \"*\" and \"?\" stand for any run of characters and any one."`
	Control string `yaml:"control" required:"true" check:"header" doc:"The header's value, such as \"no-cache\", or \"public, max-age=31536000, immutable\" for names that change with the content."`
}

// TCP is one or more servers that raw connections are passed to.
type TCP struct {
	Target  string        `yaml:"target" check:"target" doc:"host:port of the server."`
	Targets []string      `yaml:"targets" check:"target" doc:"Instead of target: several servers, of which the one with the fewest connections is taken. One that cannot be reached is passed over for a while."`
	Idle    time.Duration `yaml:"idle" default:"0s" min:"0s" doc:"A session is ended when no byte flows for so long. 0s: never."`
	Health  *TCPHealth    `yaml:"health" doc:"Connect to the targets to see whether they are there. Left out: only failures of real connections count."`
}

// TCPHealth is an active check of raw targets.
type TCPHealth struct {
	Interval time.Duration `yaml:"interval" default:"10s" min:"100ms" doc:"Time between two checks of a target."`
	Timeout  time.Duration `yaml:"timeout" default:"2s" min:"1ms" doc:"A connection that takes longer is none."`
}

// Upstream is a set of servers with the same content.
type Upstream struct {
	Targets  []string `yaml:"targets" required:"true" check:"url" doc:"URLs of the servers: http:// or https://, host and port only."`
	Login    string   `yaml:"login" default:"none" enum:"none|required" doc:"required: requests without a logged-in user are answered 401, or sent to the login page."`
	Balance  string   `yaml:"balance" default:"least-requests" enum:"least-requests|round-robin|session-hash" doc:"Which target gets a request. session-hash: the same for all requests of a session, while it is healthy."`
	Health   *Health  `yaml:"health" doc:"Ask the targets whether they are well. Left out: only failures of real requests count."`
	Timeouts Timeouts `yaml:"timeouts" doc:"How long to wait for a target."`

	Concurrency *Concurrency `yaml:"concurrency" doc:"How many requests may be under way at each target. Left out: no limit."`

	Retries       int  `yaml:"retries" default:"1" min:"0" max:"10" doc:"How many other targets a request is tried on that one could not be reached for, or that is safe to repeat."`
	ForwardCookie bool `yaml:"forward_cookie" default:"false" doc:"Pass the session cookie on. Targets learn the user from X-Tandem-User without it."`
	SessionWrite  bool `yaml:"session_write" default:"false" doc:"Let the upstream change the session of whoever it answers, log in and log out, by the response header X-Tandem-Session-Set. See docs/IDENTITY.md."`
	Assertion     bool `yaml:"assertion" default:"false" doc:"Send the proof of who is logged in, X-Tandem-Assertion, too. Needs assertion.key_files. See docs/IDENTITY.md."`
	StripPrefix   bool `yaml:"strip_prefix" default:"false" doc:"Take the route's path off before the request is passed on. Off: targets see the path as it came."`
}

// Assertion is how statements about who is logged in are signed.
type Assertion struct {
	Issuer   string   `yaml:"issuer" default:"tandem" required:"true" doc:"The claim iss."`
	KeyFiles []string `yaml:"key_files" auto:"none: nothing is signed" check:"signing_key" doc:"Ed25519 keys in PKCS #8 PEM form, as from \"openssl genpkey -algorithm ed25519\"; the same on all replicas. The first signs, all are published at /.well-known/tandem/jwks.json of every listener. To change keys, add the new one last and send SIGHUP everywhere; five minutes later move it to the front and do so again; a minute after that take the old one out."`
}

// Health is an active check of upstream targets.
type Health struct {
	Path     string        `yaml:"path" default:"/" required:"true" check:"path" doc:"Path that answers 2xx or 3xx when the target is well."`
	Interval time.Duration `yaml:"interval" default:"10s" min:"100ms" doc:"Time between two checks of a target."`
	Timeout  time.Duration `yaml:"timeout" default:"2s" min:"1ms" doc:"An answer that takes longer is none."`
}

// Concurrency bounds the requests under way at each target of an upstream.
type Concurrency struct {
	Requests int           `yaml:"requests" required:"true" min:"1" doc:"Requests at one target; a socket counts as long as it is open. A target that has so many is passed over."`
	Waiting  int           `yaml:"waiting" default:"1000" min:"0" doc:"How many more may wait for a target with a free place. Past it they are answered 503."`
	Timeout  time.Duration `yaml:"timeout" default:"5s" min:"1ms" doc:"How long one waits before it is answered 503."`
}

// Timeouts bound the parts of an exchange with an upstream target.
type Timeouts struct {
	Connect        time.Duration `yaml:"connect" default:"5s" min:"1ms" doc:"Until the connection stands."`
	Send           time.Duration `yaml:"send" default:"60s" min:"1ms" doc:"How long a target may take nothing of a request that is on its way to it."`
	ResponseHeader time.Duration `yaml:"response_header" default:"60s" min:"1ms" doc:"From the last byte of the request to the head of the answer."`
	Idle           time.Duration `yaml:"idle" auto:"90s for a connection kept for reuse, no limit within an answer" min:"0s" doc:"How long a connection to a target may carry no byte: kept for reuse, within an answer, or upgraded."`
}

// Documents holds the numbers of shared documents.
type Documents struct {
	OperationsBehind int           `yaml:"operations_behind" default:"1024" min:"1" doc:"How many operations a slow client may be behind before it is told to fetch them instead."`
	PresenceBehind   int           `yaml:"presence_behind" default:"256" min:"1" doc:"The same for presence."`
	Replies          int           `yaml:"replies" default:"32" min:"1" doc:"Direct replies that wait for a slow client."`
	MaxMessage       Size          `yaml:"max_message" default:"64KiB" min:"1KiB" max:"16MiB" doc:"Longest frame a client may send."`
	AuthTimeout      time.Duration `yaml:"auth_timeout" default:"10s" min:"100ms" doc:"Time to authenticate after the upgrade."`
	PresenceGrace    time.Duration `yaml:"presence_grace" default:"5s" min:"0s" max:"1m" doc:"Who comes back within this time after the connection broke, or after the page was loaded again, has not left: others see the new connection take the old one's place. 0s: others see it leave and join."`
	KeepOperations   int           `yaml:"keep_operations" default:"10000" min:"1" doc:"Operations kept in Redis a document; of those that a snapshot stands for, 1000."`
	Authorize        Authorize     `yaml:"authorize" doc:"Who may join and write which document: by an attribute of the session, or by asking the application. Left out: everybody who is logged in, all. docs/AUTHORIZATION.md has examples."`
}

// Authorize decides who may use which document: by Attribute or by URL, and
// with neither everybody may.
type Authorize struct {
	Attribute      string        `yaml:"attribute" auto:"none" check:"attribute" doc:"Session attribute that holds the IDs of the documents which its session may join: a text or a list of texts, in which \"*\" stands for any run of characters. Never one that \"session.client_writable\" covers."`
	WriteAttribute string        `yaml:"write_attribute" auto:"the same as attribute" check:"attribute" doc:"Another attribute of that form, for those which it may also write."`
	URL            string        `yaml:"url" auto:"none" check:"callback" doc:"The application's answer to a POST of \"{user, session, document, action}\": \"{allow: true}\" or \"{allow: false}\" as JSON, or status 403."`
	Cache          time.Duration `yaml:"cache" default:"10s" min:"1s" doc:"How long an answer of url holds. Who stays in a document is asked for again after it; when there is no answer, a yes holds once more as long, and no longer."`
	Timeout        time.Duration `yaml:"timeout" default:"2s" min:"10ms" max:"30s" doc:"An answer of url that takes longer is none."`
}

// Limits bound what one client may take; 0 is no limit.
type Limits struct {
	ConnectionsPerSession int `yaml:"connections_per_session" default:"100" min:"0" doc:"Open sockets a session."`
	ConnectionsPerUser    int `yaml:"connections_per_user" default:"1000" min:"0" doc:"Open sockets a user."`
	UpgradesPerSecond     int `yaml:"upgrades_per_second" default:"10000" min:"0" doc:"Sockets that one replica opens, documents and pairs, with a burst of twice that. Others are answered 503 with a Retry-After that spreads them out."`
	FramesPerSecond       int `yaml:"frames_per_second" default:"200" min:"0" doc:"Frames of any kind."`
	OperationsPerSecond   int `yaml:"operations_per_second" default:"100" min:"0" doc:"Operations."`
	FramesPerUser         int `yaml:"frames_per_user" default:"0" min:"0" doc:"Frames a second of all sockets that a user has to one replica, with a burst of twice that."`
	OperationsPerUser     int `yaml:"operations_per_user" default:"0" min:"0" doc:"Operations, the same."`
}

// Pairs is what the two sockets of a pair do.
type Pairs struct {
	Mode  string `yaml:"mode" default:"echo" enum:"echo|relay" doc:"echo: each message comes back numbered. relay: it goes to the other side."`
	Login string `yaml:"login" default:"required" enum:"required|optional" doc:"Whether a side needs a logged-in user."`
}

// Webapp is what the pages allow.
type Webapp struct {
	Registration string `yaml:"registration" default:"first-user" enum:"first-user|open|closed" doc:"Who may register: the first user only, anybody, nobody (\"tandem users add\" works always)."`
}

// Admin is the operators' listener.
type Admin struct {
	Address   string `yaml:"address" default:"127.0.0.1:9090" check:"address" flag:"--admin" doc:"host:port of the listener. It has no TLS: keep it inside. Empty: no such listener."`
	TokenFile string `yaml:"token_file" auto:"none: the admin API is off" check:"token" doc:"File with the bearer token of the admin API under /admin/v1/. Health and metrics need none."`
}

// Drain is the time table of a shutdown.
type Drain struct {
	Timeout time.Duration `yaml:"timeout" default:"30s" min:"0s" doc:"Requests and sockets that are not done by then are cut."`
	Spread  time.Duration `yaml:"spread" default:"10s" auto:"10s, or timeout if that is shorter" min:"0s" doc:"Sockets are asked to reconnect evenly over this time, so that they do not all come back at once."`
}

// Log is the form of the log.
type Log struct {
	Format string `yaml:"format" default:"text" enum:"text|json" flag:"--log-format" doc:"text for people, json for machines: then every line on standard error is one JSON object."`
	Level  string `yaml:"level" default:"info" enum:"debug|info|warn|error" flag:"--log-level" doc:"Less important lines are left out."`
}

// CookieSecure reports whether the session cookie is Secure.
func (c *Config) CookieSecure() bool {
	if c.Session.Secure == "always" {
		return true
	}
	for i := range c.Listeners {
		if c.Listeners[i].TLS != nil {
			return true
		}
	}
	return false
}

// Embedded reports whether Redis lives inside this process.
func (c *Config) Embedded() bool { return c.Redis == embedded }

// Reload reads the same file, environment and flags again.
func (c *Config) Reload() (*Config, error) { return Load(c.source) }

// Fault describes what another package found wrong with the value at path,
// "listeners[0].address", at the place where it was given.
func (c *Config) Fault(path, message string) Fault {
	p := c.places.placeOf(path)
	return Fault{Where: p.where, Line: p.line, Column: p.column, Message: path + ": " + message}
}

// embedded is the Redis URL of the server inside the process.
const embedded = "embedded:"

// standardRoutes is what a listener serves that says nothing else.
func standardRoutes() []Route {
	return []Route{
		{Path: "/ws/documents/", Use: "documents"},
		{Path: "/left/", Use: "pairs"},
		{Path: "/right/", Use: "pairs"},
		{Path: "/", Use: "webapp"},
	}
}
