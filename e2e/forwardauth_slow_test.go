//go:build slow

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// nginxConfig is that of docs/IDENTITY.md, for Tandem at %[2]s and an application at %[3]s.
const nginxConfig = `
worker_processes 1;
daemon off;
pid %[4]s/nginx.pid;
error_log stderr warn;
events { worker_connections 128; }
http {
	access_log off;
	client_body_temp_path %[4]s/body; proxy_temp_path %[4]s/proxy; fastcgi_temp_path %[4]s/fcgi; uwsgi_temp_path %[4]s/uwsgi; scgi_temp_path %[4]s/scgi;
	server {
		listen %[1]s;
		proxy_set_header Host              $http_host;
		proxy_set_header X-Forwarded-For   $proxy_add_x_forwarded_for;
		proxy_set_header X-Forwarded-Proto $scheme;
		proxy_set_header X-Forwarded-Host  $http_host;
		proxy_set_header Forwarded         "";

		location / { proxy_pass http://%[2]s; }

		location /app/ {
			auth_request     /auth/verify;
			auth_request_set $tandem_user      $upstream_http_x_tandem_user;
			auth_request_set $tandem_user_name $upstream_http_x_tandem_user_name;
			auth_request_set $tandem_session   $upstream_http_x_tandem_session;
			proxy_set_header X-Tandem-User      $tandem_user;
			proxy_set_header X-Tandem-User-Name $tandem_user_name;
			proxy_set_header X-Tandem-Session   $tandem_session;
			proxy_set_header Cookie ""; # the ID is nobody else's business; an application with cookies of its own needs a map
			proxy_pass http://%[3]s;
			error_page 401 = @login;
		}
		location = /auth/verify {
			internal;
			proxy_pass http://%[2]s;
			proxy_pass_request_body off;
			proxy_set_header Content-Length  "";
			proxy_set_header Host            $http_host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		}
		location @login { return 303 /login?next=$request_uri; }
	}
}
`

// Real nginx in front of an application, asking Tandem who is there.
func TestForwardAuthWithNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx" // not in everybody's PATH
	}
	redis := redistest.Start(t)
	app := upstream(t)
	r := startReplica(t, settings{redis: redis.URL(), more: "trusted_proxies: [private]\n"})
	dir, address := t.TempDir(), freeAddress(t)
	config := filepath.Join(dir, "nginx.conf")
	writeFile(t, config, fmt.Sprintf(nginxConfig, address, strings.TrimPrefix(r.url, "http://"), strings.TrimPrefix(app.URL, "http://"), dir))
	startProcess(t, "nginx", nil, nginx, "-c", config, "-p", dir, "-e", "stderr")
	front := "http://" + address
	eventually(t, 20*time.Second, func() error {
		resp, err := http.Get(front + "/login")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})

	ada := newPerson(t)
	if a := ada.page(front + "/app/x?y=1"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/login?next=/app/x?y=1" && !strings.HasSuffix(a.header.Get("Location"), "/login?next=/app/x?y=1") {
		t.Errorf("nobody: %d %s", a.status, a.header.Get("Location"))
	}
	ada.register(front, "ada")
	req := ada.request(http.MethodPost, front+"/app/x", strings.NewReader(url.Values{"a": {"1"}}.Encode()))
	req.Header.Set("X-Tandem-User", "forged")
	req.Header.Set("X-Tandem-User-Name", "forged")
	req.Header.Set("X-Tandem-Session", "forged")
	s := ada.session(front)
	a := ada.do(req)
	if a.status != http.StatusOK || strings.Contains(a.body, "forged") || !strings.Contains(a.body, "X-Tandem-User: "+s.User.ID+"\r\n") ||
		!strings.Contains(a.body, "X-Tandem-User-Name: ada\r\n") || !strings.Contains(a.body, "X-Tandem-Session: "+s.Handle+"\r\n") {
		t.Errorf("logged in: %d %s", a.status, a.body)
	}
	if a := ada.get(front + "/auth/verify"); a.status != http.StatusNotFound {
		t.Errorf("nginx's own question can be asked by everybody: %d", a.status)
	}

	redis.Stop()
	eventually(t, 20*time.Second, func() error {
		if a := ada.page(front + "/app/x"); a.status < 500 {
			return fmt.Errorf("Redis is away, and the application answers %d", a.status)
		}
		return nil
	})
}
