import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { FakeSocket, closeAll, join, op, open, ops, settle } from "./harness.mjs";

beforeEach(() => {
  FakeSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
});
afterEach(() => {
  closeAll();
  mock.timers.reset();
});

test("authenticates first, joins, then sends", async () => {
  const { c, seen } = open();
  const acked = c.publish("x");
  const ws = await join();
  assert.equal(ws.url, "wss://example.test/ws/documents/a%3Ab");
  assert.deepEqual(ws.types(), ["authenticate", "join_document", "operation"]);
  assert.deepEqual(seen, ["connecting", "authenticated", "joined"]);
  ws.reply({ type: "ack", re: ws.sent[2].id, epoch: "e", seq: 1, duplicate: false });
  assert.deepEqual(await acked, { epoch: "e", seq: 1, duplicate: false });
  assert.equal(c.unacknowledged, 0);
});

test("what is not acknowledged is sent again under its ID", async () => {
  const { c } = open();
  const first = await join();
  const acked = c.publish("x");
  const id = first.sent.at(-1).id;
  first.lose(1006);
  mock.timers.tick(500);
  const second = await join();
  assert.notEqual(first, second);
  assert.deepEqual(second.sent[1].since, { epoch: "e", seq: 0 });
  assert.equal(second.sent.at(-1).id, id);
  second.reply({ type: "ack", re: id, epoch: "e", seq: 1, duplicate: true });
  assert.equal((await acked).duplicate, true);
});

test("comes back after the right codes only", async () => {
  for (const code of [1001, 1006, 1012, 4429, 4503]) {
    const { c } = open();
    (await join()).lose(code);
    assert.equal(c.status.state, "waiting", String(code));
    c.close();
  }
  for (const code of [1000, 1009, 4400, 4401, 4403, 4408, 4409]) {
    const { c } = open();
    const acked = c.publish("x");
    (await join()).lose(code, "logout");
    assert.equal(c.status.state, "closed", String(code));
    assert.equal(c.status.reason, "logout");
    await assert.rejects(acked, { code: "CLOSED" });
  }
});

test("reconnects when told, after the time told", async () => {
  const { c } = open();
  const ws = await join();
  ws.reply({ type: "reconnect", after_ms: 3000 });
  mock.timers.tick(2999);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(1);
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(ws.closedWith, 1000);
  (await join()).lose(1012);
  assert.equal(c.status.retryInMs, 500, "the next time without being told: back-off");
});

test("a refusal that passes is repeated, another is told", async () => {
  const { c } = open();
  const ws = await join();
  const acked = c.publish("x");
  const { id } = ws.sent.at(-1);
  ws.reply({ type: "error", re: id, code: "RATE_LIMITED", retry_after_ms: 700 });
  const waiting = c.publish("y");
  assert.equal(ws.types().filter((t) => t === "operation").length, 1, "the later one waits");
  mock.timers.tick(700 + 1099);
  assert.equal(ws.types().filter((t) => t === "operation").length, 1, "whoever is refused again and again is cut off");
  mock.timers.tick(1);
  assert.deepEqual(ws.sent.slice(-2).map((f) => f.payload), ["x", "y"]);
  ws.reply({ type: "ack", re: id, epoch: "e", seq: 1 });
  await acked;
  ws.reply({ type: "error", re: ws.sent.at(-1).id, code: "TOO_LARGE", message: "no" });
  await assert.rejects(waiting, { code: "TOO_LARGE" });
});

test("a gap is repaired by one sync at a time", async () => {
  const got = [];
  open({ onOperation: (o) => got.push(o.seq) });
  const ws = await join();
  ws.broadcast(op(1));
  ws.broadcast(op(3));
  ws.broadcast(op(4));
  ws.reply({ type: "lagged", channel: "operations", dropped: 1, epoch: "e", seq: 4 });
  const syncs = () => ws.sent.filter((f) => f.type === "sync_request");
  assert.equal(syncs().length, 1);
  assert.deepEqual(syncs()[0].since, { epoch: "e", seq: 1 });
  ws.reply({ type: "sync_response", re: "~sync", epoch: "e", from: 2, to: 4, recovered: true, snapshot: null, operations: ops(2, 3, 4), more: false });
  assert.deepEqual(got, [1, 2, 3, 4]);
  assert.equal(syncs().length, 2, "one more for the gap that was seen meanwhile");
});

test("presence that was lost is read again in place", async () => {
  const { c } = open();
  const ws = await join({ presence: [{ connection_id: "x" }, { connection_id: "gone" }] });
  ws.reply({ type: "lagged", channel: "presence", dropped: 3, epoch: "e", seq: 0 });
  assert.deepEqual(ws.types().slice(-1), ["sync_request"], "and nobody is told that we left");
  const history = { epoch: "e", from: 1, to: 0, recovered: true, snapshot: null, operations: [], more: false };
  ws.reply({ type: "sync_response", re: "~sync", ...history, presence: [{ connection_id: "x" }, { connection_id: "y" }] });
  assert.deepEqual([...c.members.keys()], ["x", "y"]);
  ws.reply({ type: "sync_response", re: "~sync", ...history });
  assert.equal(c.members.size, 2);
});

test("authenticates again when that could not be answered", async () => {
  const { c } = open();
  await settle();
  const ws = FakeSocket.last;
  ws.onopen();
  await settle();
  ws.reply({ type: "hello", connection_id: "c", heartbeat_ms: 10_000 });
  ws.reply({ type: "error", re: ws.sent[0].id, code: "UNAVAILABLE", retry_after_ms: 1000 });
  mock.timers.tick(999);
  assert.equal(ws.sent.length, 1);
  mock.timers.tick(501); // no sooner than told, and spread
  assert.deepEqual(ws.types(), ["authenticate", "authenticate"]);
  assert.equal(c.status.state, "connecting");
});

test("presence is merged and starts over with the connection", async () => {
  const { c } = open();
  c.setPresence({ line: 1 });
  const ws = await join({ presence: [{ connection_id: "x", user_name: "bob", color: "#fff" }] });
  assert.deepEqual(ws.sent.at(-1), { type: "presence", state: { line: 1 } });
  ws.broadcast({ type: "presence", joined: [{ connection_id: "y", user_name: "eve" }], updated: [{ connection_id: "x", state: 7 }] });
  assert.deepEqual(c.members.get("x"), { connection_id: "x", user_name: "bob", color: "#fff", state: 7 });
  ws.broadcast({ type: "presence", left: [{ connection_id: "x", reason: "closed" }] });
  assert.deepEqual([...c.members.keys()], ["y"]);
  ws.lose(1006);
  assert.equal(c.members.size, 0);
});

test("session values, changes and renewal", async () => {
  let renewals = 0;
  const changes = [];
  const { c } = open({ renew: async () => renewals++, onSessionChanged: (x) => changes.push(x) });
  const values = c.sessionSet({ "chat.name": "Ada" });
  const ws = await join();
  const frame = ws.sent.find((f) => f.type === "session_set");
  assert.deepEqual(frame, { type: "session_set", set: { "chat.name": "Ada" }, delete: [], id: frame.id });
  ws.reply({ type: "session", re: frame.id, values: { "chat.name": "Ada" } });
  assert.deepEqual(await values, { "chat.name": "Ada" });
  ws.reply({ type: "session_changed", set: { "chat.name": "Eve" }, delete: [] });
  assert.deepEqual(changes, [{ set: { "chat.name": "Eve" }, delete: [] }]);
  ws.reply({ type: "renew" });
  ws.reply({ type: "renew" });
  assert.equal(renewals, 1);
  const lost = c.sessionGet();
  ws.lose(1006);
  await assert.rejects(lost, { code: "DISCONNECTED" });
});

test("a link that died without a word is given up", async () => {
  const { c } = open();
  const ws = await join();
  mock.timers.tick(10_000); // heard something before
  mock.timers.tick(10_000);
  assert.equal(ws.types().at(-1), "ping");
  ws.reply({ type: "pong" });
  mock.timers.tick(10_000);
  mock.timers.tick(10_000);
  assert.equal(c.status.state, "joined");
  mock.timers.tick(10_000);
  assert.equal(c.status.state, "waiting");
});

test("frames that are not known are ignored", async () => {
  const { c } = open();
  const ws = await join();
  ws.reply({ type: "something_new" });
  ws.reply({ type: "toString" });
  assert.equal(c.status.state, "joined");
});

test("who may not be in the document is told, and asks again when the session changes", async () => {
  const errors = [];
  const { c, seen } = open({ onError: (e) => errors.push(e.code) });
  const ws = await join({ presence: [{ connection_id: "x" }] });
  const acked = c.publish("x");
  const kept = c.snapshot("s");
  ws.reply({ type: "error", code: "FORBIDDEN", message: "not yours" });
  ws.reply({ type: "left_document" });
  assert.equal(c.status.state, "forbidden");
  assert.equal(c.status.reason, "not yours");
  assert.equal(c.members.size, 0);
  await assert.rejects(acked, { code: "FORBIDDEN" });
  await assert.rejects(kept, { code: "FORBIDDEN" });
  await assert.rejects(c.publish("y"), { code: "FORBIDDEN" });
  mock.timers.tick(60_000);
  const joins = () => ws.types().filter((t) => t === "join_document").length;
  assert.equal(joins(), 1, "asking again by itself would get the same answer");
  c.sessionGet().catch(() => {});
  assert.equal(ws.types().at(-1), "session_get", "the session is still there");
  ws.reply({ type: "session_changed", set: { team: "b" }, delete: [] });
  assert.equal(joins(), 2);
  ws.reply({ type: "error", re: "~join", code: "FORBIDDEN", message: "not yours" });
  c.retry();
  ws.reply({ type: "joined_document", epoch: "e", seq: 0, recovered: true, snapshot: null, operations: [], more: false, presence: [] });
  ws.reply({ type: "error", re: "~join", code: "ALREADY_JOINED" }); // it was asked twice
  assert.deepEqual(seen.slice(-3), ["forbidden", "forbidden", "joined"]);
  assert.deepEqual(errors, ["FORBIDDEN", "FORBIDDEN"]);
});

test("taken out of the document because nobody could be asked, it comes back", async () => {
  const { c } = open();
  const ws = await join();
  const acked = c.publish("x");
  const { id } = ws.sent.at(-1);
  ws.reply({ type: "error", code: "UNAVAILABLE", retry_after_ms: 1000 });
  ws.reply({ type: "left_document" });
  ws.reply({ type: "error", re: id, code: "NOT_JOINED" });
  assert.equal(c.status.state, "authenticated");
  mock.timers.tick(1500);
  assert.equal(ws.types().at(-1), "join_document");
  ws.reply({ type: "joined_document", epoch: "e", seq: 0, recovered: true, snapshot: null, operations: [], more: false, presence: [] });
  assert.equal(ws.sent.at(-1).id, id, "and says what it had to say");
  ws.reply({ type: "ack", re: id, epoch: "e", seq: 1 });
  await acked;
});

test("work waits while Redis is away, and another replica's Redis is another", async () => {
  const { c } = open();
  const ws = await join();
  ws.reply({ type: "status", redis: "down" });
  c.publish("x").catch(() => {});
  ws.reply({ type: "error", re: ws.sent.at(-1).id, code: "UNAVAILABLE", retry_after_ms: 1000 });
  const sent = ws.sent.length;
  mock.timers.tick(9000);
  assert.equal(ws.sent.length, sent);
  ws.reply({ type: "status", redis: "up" });
  assert.equal(ws.types().at(-1), "operation");
  ws.reply({ type: "status", redis: "down" });
  ws.lose(1006);
  mock.timers.tick(500);
  await join();
  assert.equal(c.status.redis, "up");
});

test("what the page throws does not keep the rest from being applied", async () => {
  const got = [];
  const thrown = [];
  const later = globalThis.queueMicrotask;
  globalThis.queueMicrotask = (fn) => later(() => { try { fn(); } catch (error) { thrown.push(error.message); } });
  try {
    const { c } = open({
      onOperation: (o) => {
        got.push(o.seq);
        if (o.seq === 1) throw new Error("the page's fault");
      },
    });
    await join({ seq: 2, operations: ops(1, 2) });
    await settle();
    assert.deepEqual(got, [1, 2]);
    assert.deepEqual(thrown, ["the page's fault"]);
    assert.equal(c.status.state, "joined");
  } finally {
    globalThis.queueMicrotask = later;
  }
});

test("closed in a callback, nothing more is told", async () => {
  const got = [];
  const { seen } = open({
    onOperation: (o, c) => {
      got.push(o.seq);
      c.close();
    },
  });
  await join({ seq: 2, operations: ops(1, 2) });
  assert.deepEqual(got, [1]);
  assert.deepEqual(seen, ["connecting", "authenticated", "closed"]);
});

test("a snapshot names the epoch that its position was counted in", async () => {
  const { c } = open();
  const ws = await join({ seq: 1, operations: ops(1) });
  c.snapshot({ all: true }).catch(() => {});
  const { type, epoch, seq, payload } = ws.sent.at(-1);
  assert.deepEqual({ type, epoch, seq, payload }, { type: "snapshot", epoch: "e", seq: 1, payload: { all: true } });
});

test("pages of a long history are asked for, with broadcasts between them", async () => {
  const got = [];
  open({ onOperation: (o) => got.push(o.seq) });
  const ws = await join({ seq: 4, operations: ops(1, 2), more: true });
  assert.deepEqual(ws.sent.at(-1).since, { epoch: "e", seq: 2 });
  ws.broadcast(op(5));
  ws.reply({ type: "sync_response", re: "~sync", epoch: "e", from: 3, to: 5, recovered: true, snapshot: null, operations: ops(3), more: true });
  assert.deepEqual(ws.sent.at(-1).since, { epoch: "e", seq: 3 });
  ws.reply({ type: "sync_response", re: "~sync", epoch: "e", from: 4, to: 5, recovered: true, snapshot: null, operations: ops(4, 5), more: false });
  assert.deepEqual(got, [1, 2, 3, 4, 5]);
});

test("a new epoch is told by lagged, and starts over", async () => {
  const got = [];
  const { c } = open({ onOperation: (o) => got.push(`${o.epoch}${o.seq}`), onReset: (s) => got.push(s) });
  const ws = await join({ seq: 1, operations: ops(1) });
  ws.reply({ type: "lagged", channel: "operations", dropped: 0, epoch: "f", seq: 3 });
  ws.broadcast(op(4, "f"));
  ws.reply({ type: "sync_response", re: "~sync", epoch: "f", from: 3, to: 3, recovered: false, snapshot: { seq: 2, payload: "S" }, operations: [op(3, "f")], more: false });
  assert.deepEqual(ws.sent.at(-1).since, { epoch: "f", seq: 3 });
  ws.reply({ type: "sync_response", re: "~sync", epoch: "f", from: 4, to: 4, recovered: true, snapshot: null, operations: [op(4, "f")], more: false });
  assert.deepEqual(got, [null, "e1", "S", "f3", "f4"]);
  assert.deepEqual(c.position, { epoch: "f", seq: 4 });
});

test("one who came back takes its old place in one callback", async () => {
  const sizes = [];
  const { c } = open({ onPresence: (m) => sizes.push([...m.keys()].join()) });
  const ws = await join({ presence: [{ connection_id: "old", user_id: "2" }] });
  ws.broadcast({ type: "presence", joined: [{ connection_id: "new", user_id: "2" }], left: [{ connection_id: "old", reason: "replaced" }] });
  assert.deepEqual(sizes, ["old", "new"]);
  assert.equal(c.members.size, 1);
});
