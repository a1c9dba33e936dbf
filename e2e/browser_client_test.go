package e2e

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// clientPage has a page open a document and publish to it, eight at a time, until `stop`; what became of it is in
// variables that the test looks at.
const clientPage = `(async (name) => {
	const { connect } = await import("/static/tandem.js");
	Object.assign(globalThis, { log: [], acked: [], failed: [], fetched: [], opened: 0, stop: false, working: 8 });
	const fetch = globalThis.fetch;
	globalThis.fetch = async (url, init) => {
		const answer = await fetch(url, init);
		fetched.push(String(url));
		return answer;
	};
	globalThis.c = connect({
		document: "ada",
		WebSocket: class extends WebSocket { constructor(...to) { super(...to); opened++; } },
		onReset: () => log.splice(0),
		onOperation: (op) => log.push({ seq: op.seq, id: op.id }),
	});
	let n = 0;
	const work = async () => {
		while (!stop) {
			const id = name + "-" + n++;
			await c.publish({ id }, id).then((ack) => acked.push({ seq: ack.seq, id }), (error) => failed.push(id + ": " + error.code));
		}
		working--;
	};
	for (let i = 0; i < working; i++) work();
})`

type stored struct {
	Seq uint64
	ID  string
}

// evaluate is the value of a JavaScript expression in a window, or of what it promises.
func evaluate[T any](t *testing.T, window context.Context, js string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(window, 30*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return v
}

// Two pages publish through a balancer while the two replicas behind it are killed in turn: each page has every
// acknowledged operation once, in the same order. A new ID of the session costs no socket; a logout does, for good.
func TestBrowserClient(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	s := settings{redis: redis.URL(), more: "documents: {authorize: {attribute: user.name}}\n"} // whoever it is named after
	replicas := &fleet{t: t, settings: []settings{s, s}}
	replicas.start()
	site := startBalancer(t, 4, replicas.anywhere)

	one := browser(t)
	step(t, one, "register", chromedp.Navigate(site.url+"/register"), chromedp.WaitVisible("#username"),
		chromedp.SendKeys("#username", "ada"), chromedp.SendKeys("#password", password), chromedp.Click("#submit"),
		chromedp.WaitVisible("#whoami"))
	two := window(t, one)
	step(t, two, "open the second page", chromedp.Navigate(site.url+"/account"), chromedp.WaitVisible("#whoami"))
	refused := evaluate[string](t, two, `import("/static/tandem.js").then(async ({ connect }) => {
		const c = connect({ document: "of-somebody-else" });
		const { code } = await c.publish(1).catch((error) => error);
		const { state } = c.status;
		c.close();
		return code + " " + state;
	})`)
	if refused != "FORBIDDEN forbidden" {
		t.Errorf("a document of somebody else: %s", refused)
	}
	pages := map[string]context.Context{"one": one, "two": two}
	for name, page := range pages {
		evaluate[chromedp.Void](t, page, clientPage+"("+quote(name)+")")
	}

	for kill := range documentSizes.pageKills {
		for name, page := range pages {
			evaluate[chromedp.Void](t, page, `globalThis.enough = acked.length + 50`)
			step(t, page, "page "+name+" gets on", chromedp.Poll[chromedp.Void](`acked.length >= enough`))
		}
		replicas.kill(kill % 2)
	}
	for name, page := range pages {
		evaluate[chromedp.Void](t, page, `globalThis.stop = true`)
		step(t, page, "page "+name+" comes to an end", chromedp.Poll[chromedp.Void](`working === 0 && c.unacknowledged === 0`))
	}
	compareLogs(t, pages)
	rotateAndEnd(t, one, two)
}

// compareLogs looks at what each page was acknowledged and has applied.
func compareLogs(t *testing.T, pages map[string]context.Context) {
	t.Helper()
	at := map[string]uint64{} // of what was acknowledged
	reconnects := 0
	for name, page := range pages {
		if failed := evaluate[[]string](t, page, `failed`); len(failed) > 0 {
			t.Errorf("page %s: rejected: %v", name, failed)
		}
		for _, a := range evaluate[[]stored](t, page, `acked`) {
			at[a.ID] = a.Seq
		}
		reconnects += evaluate[int](t, page, `opened`) - 1
	}
	for name, page := range pages {
		step(t, page, "page "+name+" has all", chromedp.Poll[chromedp.Void](`log.length >= `+strconv.Itoa(len(at))+` && c.status.state === "joined"`))
		seen := map[string]bool{}
		for i, op := range evaluate[[]stored](t, page, `log`) {
			if op.Seq != uint64(i)+1 || at[op.ID] != op.Seq || seen[op.ID] {
				t.Fatalf("page %s has %+v in place %d, it was acknowledged as %d", name, op, i+1, at[op.ID])
			}
			seen[op.ID] = true
		}
		if len(seen) != len(at) {
			t.Errorf("page %s has %d operations, %d were acknowledged", name, len(seen), len(at))
		}
	}
	if reconnects == 0 {
		t.Error("no page lost its socket: the test shows nothing")
	}
	t.Logf("%d operations, %d reconnects", len(at), reconnects)
}

// rotateAndEnd logs in again in one page, which replaces the session's ID, and then logs out there.
func rotateAndEnd(t *testing.T, one, two context.Context) {
	t.Helper()
	opened := evaluate[int](t, two, `opened`)
	evaluate[chromedp.Void](t, one, `fetch("/login", { method: "POST", body: new URLSearchParams({ username: "ada", password: `+quote(password)+` }) })`)
	step(t, two, "the other page renews its cookie", chromedp.Poll[chromedp.Void](`fetched.includes("/api/session/renew")`))
	values := evaluate[map[string]string](t, two, `c.sessionSet({ "chat.name": "Countess" })`)
	if values["chat.name"] != "Countess" || evaluate[int](t, two, `opened`) != opened {
		t.Errorf("after a new ID the session has %v, on another socket", values)
	}
	if read := evaluate[map[string]string](t, one, `c.sessionGet(["chat.name"])`); read["chat.name"] != "Countess" {
		t.Errorf("the first page reads %v", read)
	}

	evaluate[chromedp.Void](t, one, `fetch("/logout", { method: "POST" })`)
	for _, page := range []context.Context{one, two} {
		step(t, page, "a logout closes the socket", chromedp.Poll[chromedp.Void](`c.status.state === "closed" && c.status.code === 4401 && c.status.reason === "logout"`))
	}
	evaluate[chromedp.Void](t, two, `(dispatchEvent(new Event("online")), c.retry(), fetch("/api/session"))`)
	if now := evaluate[int](t, two, `opened`); now != opened {
		t.Errorf("%d sockets were opened after the logout", now-opened)
	}
}
