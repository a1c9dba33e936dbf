import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { backoff } from "../static/link.js";
import { connect } from "../static/tandem.js";
import { FakeSocket, closeAll, join, open, settle } from "./harness.mjs";

beforeEach(() => {
  FakeSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
});
afterEach(() => {
  closeAll();
  mock.timers.reset();
});

test("backoff grows, is bounded and spread", () => {
  assert.equal(backoff(0, () => 0), 250);
  assert.equal(backoff(0, () => 1), 500);
  assert.equal(backoff(3, () => 1), 4000);
  assert.equal(backoff(1e6, () => 1), 30_000);
});

test("documents and colours that no server takes are refused at once", () => {
  for (const bad of [{ document: "a b" }, { document: "" }, { document: "x".repeat(129) }, { color: "red" }]) {
    assert.throws(() => connect({ document: "d", url: "https://example.test/", ...bad }), { code: "BAD_MESSAGE" });
  }
});

test("attempts that fail are further and further apart", async () => {
  const { c } = open();
  await settle();
  const waits = [];
  for (let i = 0; i < 9; i++) {
    FakeSocket.last.lose(1006); // an upgrade that is refused looks like this
    waits.push(c.status.retryInMs);
    mock.timers.tick(c.status.retryInMs);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  const ws = await join();
  mock.timers.tick(10_000); // it holds
  ws.lose(1006);
  assert.equal(c.status.retryInMs, 500);
});

test("a socket that never opens is given up", async () => {
  const { c } = open();
  await settle();
  mock.timers.tick(20_000);
  assert.equal(c.status.state, "waiting");
  assert.equal(FakeSocket.last.onclose, null);
});

test("every socket has a ticket of its own, fetched before it opens", async () => {
  let n = 0;
  let give;
  const { c } = open({ ticket: () => (++n === 3 ? Promise.reject(new Error("503")) : new Promise((resolve) => (give = resolve))) });
  await settle();
  assert.equal(FakeSocket.all.length, 0);
  give("one");
  const ws = await join();
  assert.deepEqual(ws.sent[0], { type: "authenticate", id: "~auth", ticket: "one" });
  ws.lose(1006);
  mock.timers.tick(500);
  give("two");
  await settle();
  FakeSocket.last.onopen();
  assert.equal(FakeSocket.last.sent[0].ticket, "two");
  FakeSocket.last.reply({ type: "error", re: "~auth", code: "UNAVAILABLE", retry_after_ms: 1000 });
  assert.equal(c.status.state, "waiting", "a ticket serves once");
  mock.timers.tick(1500);
  await settle();
  assert.equal(c.status.reason, "no ticket");
  mock.timers.tick(c.status.retryInMs);
  c.close();
  give("late");
  await settle();
  assert.equal(FakeSocket.all.length, 2, "closed meanwhile");
});

test("the network is back, or the page: a wait is cut short, unless the server asked for it", async () => {
  const { c } = open();
  await settle();
  for (let i = 0; i < 5; i++) {
    FakeSocket.last.lose(1006);
    mock.timers.tick(c.status.retryInMs);
  }
  FakeSocket.last.lose(1006);
  assert.equal(c.status.retryInMs, 16_000);
  const opened = FakeSocket.all.length;
  globalThis.dispatchEvent(new Event("online"));
  mock.timers.tick(499);
  assert.equal(FakeSocket.all.length, opened);
  mock.timers.tick(1);
  assert.equal(FakeSocket.all.length, opened + 1);

  for (const lose of [
    (ws) => ws.lose(4503),
    (ws) => {
      ws.reply({ type: "reconnect", after_ms: 8000 });
      ws.lose(1006);
    },
  ]) {
    const ws = await join();
    lose(ws);
    globalThis.dispatchEvent(new Event("online"));
    mock.timers.tick(c.status.retryInMs - 1);
    assert.equal(FakeSocket.last, ws);
    mock.timers.tick(1);
  }
  (await join()).lose(4429);
  c.retry(); // whoever is there may
  assert.equal(c.status.state, "connecting");
});

test("a page that wakes up asks whether its link lives", async () => {
  const { c } = open();
  const ws = await join();
  globalThis.dispatchEvent(new Event("pageshow"));
  assert.equal(ws.types().at(-1), "ping");
  ws.reply({ type: "pong" });
  mock.timers.tick(5000);
  assert.equal(c.status.state, "joined");
  globalThis.dispatchEvent(new Event("online"));
  mock.timers.tick(5000);
  assert.equal(c.status.state, "waiting");
});

test("a page that was frozen asks before it judges", async () => {
  const { c } = open();
  const ws = await join();
  mock.timers.tick(10_000);
  mock.timers.tick(10_000);
  assert.equal(ws.types().at(-1), "ping");
  mock.timers.setTime(Date.now() + 60_000); // its timers stood still, the answer is not read yet
  assert.equal(c.status.state, "joined");
  ws.reply({ type: "pong" });
  mock.timers.tick(10_000);
  assert.equal(c.status.state, "joined");
});

test("after close nothing is left behind", async () => {
  const listening = new Set();
  const own = ["addEventListener", "removeEventListener"].map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  globalThis.addEventListener = (name) => listening.add(name);
  globalThis.removeEventListener = (name) => listening.delete(name);
  try {
    for (const end of [(c) => c.close(), (c, ws) => ws.lose(4401, "logout"), (c, ws, abort) => abort.abort()]) {
      const abort = new AbortController();
      const { c, seen } = open({ signal: abort.signal });
      const ws = await join();
      assert.deepEqual([...listening].sort(), ["online", "pageshow"]);
      c.setPresence({});
      ws.reply({ type: "reconnect", after_ms: 5000 });
      const waits = [c.publish(1), c.sessionGet(), c.snapshot(1)];
      end(c, ws, abort);
      const { length } = ws.sent;
      for (const promise of [...waits, c.publish(2), c.sessionGet()]) await assert.rejects(promise, { code: "CLOSED" });
      c.setPresence({});
      c.retry();
      abort.abort();
      mock.timers.tick(100_000);
      assert.equal(listening.size, 0);
      assert.equal(ws.sent.length, length);
      assert.equal(FakeSocket.last, ws);
      assert.equal(seen.filter((state) => state === "closed").length, 1);
    }
  } finally {
    for (const [name, descriptor] of own) descriptor ? Object.defineProperty(globalThis, name, descriptor) : delete globalThis[name];
  }
});

test("aborted before it began, it never opens", async () => {
  const { c } = open({ signal: AbortSignal.abort() });
  await assert.rejects(c.publish(1), { code: "CLOSED" });
  await settle();
  assert.equal(FakeSocket.all.length, 0);
  assert.equal(c.status.reason, "aborted");
});
