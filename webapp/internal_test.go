package webapp

import (
	"net/url"
	"testing"
	"time"
)

func TestDevice(t *testing.T) {
	for ua, want := range map[string]string{
		"": "Unknown device",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0":        "Edge on Windows",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile Safari/604.1": "Safari on iPhone",
		"Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36":                     "Chrome on Android",
		"curl/8.5.0":           "curl",
		"Go-http-client/1.1 x": "Go-http-client/1.1",
	} {
		if got := device(ua); got != want {
			t.Errorf("device(%q) = %q, want %q", ua, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "just now", 59 * time.Second: "just now", time.Minute: "1 minute ago", 119 * time.Minute: "1 hour ago",
		23 * time.Hour: "23 hours ago", 72 * time.Hour: "3 days ago",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
}

func FuzzLocalPath(f *testing.F) {
	for _, next := range []string{"/", "/a?b#c", "//x", `/\x`, "/%2fx", "/\tx", "https://x/", "/a//b", ""} {
		f.Add(next)
	}
	here, _ := url.Parse("https://here.example/login")
	f.Fuzz(func(t *testing.T, next string) {
		path := localPath(next)
		if path == "" {
			return
		}
		there, err := here.Parse(path)
		if err != nil || there.Host != here.Host || there.Scheme != here.Scheme || path != next {
			t.Errorf("%q leads to %v, %v", next, there, err)
		}
	})
}
