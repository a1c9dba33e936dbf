// Run with: node --test webapp/jstest/
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { backoff, connect } from "../static/tandem.js";
import { Sequence } from "../static/sequence.js";

const op = (seq, epoch = "e") => ({ type: "operation", epoch, seq, id: `o${seq}`, payload: seq });
const ops = (...seqs) => seqs.map((seq) => op(seq));

function sequence() {
  const got = [];
  let repairs = 0;
  const s = new Sequence({
    apply: (o) => got.push(o.payload),
    reset: (snapshot) => got.push(`reset ${snapshot}`),
    repair: () => repairs++,
  });
  return { s, got, repairs: () => repairs };
}

test("operations are applied once and in order", () => {
  const { s, got, repairs } = sequence();
  s.history({ epoch: "e", seq: 2, recovered: true, snapshot: null, operations: ops(1, 2), more: false });
  s.live(op(3));
  s.live(op(3));
  s.live(op(6));
  s.live(op(5));
  assert.equal(repairs(), 2);
  s.history({ epoch: "e", to: 4, recovered: true, snapshot: null, operations: ops(4), more: false });
  assert.deepEqual(got, ["reset null", 1, 2, 3, 4, 5, 6]);
  assert.deepEqual(s.position(), { epoch: "e", seq: 6 });
});

test("a new epoch starts over", () => {
  const { s, got, repairs } = sequence();
  s.history({ epoch: "e", seq: 1, recovered: true, snapshot: null, operations: ops(1), more: false });
  s.live(op(1, "f"));
  assert.equal(repairs(), 1);
  s.history({ epoch: "f", to: 1, recovered: false, snapshot: null, operations: [op(1, "f")], more: false });
  s.live(op(2, "f"));
  assert.deepEqual(got, ["reset null", 1, "reset null", 1, 2]);
});

test("a trimmed log starts at its snapshot, or at what is kept", () => {
  for (const [snapshot, operations, seq] of [
    [{ seq: 7, payload: "s" }, ops(8, 9), 9],
    [{ seq: 7, payload: "s" }, ops(6, 7, 8), 8],
    [{ seq: 9, payload: "s" }, [], 9],
    [null, ops(5, 6), 6],
    [null, [], 9],
  ]) {
    const { s, repairs } = sequence();
    s.history({ epoch: "e", to: 9, recovered: false, snapshot, operations, more: false });
    assert.equal(s.seq, seq);
    assert.ok(repairs() === 0);
  }
});

test("more is asked for, but never without progress", () => {
  const { s, repairs } = sequence();
  s.history({ epoch: "e", seq: 4, recovered: true, snapshot: null, operations: ops(1), more: true });
  assert.equal(repairs(), 1);
  s.history({ epoch: "e", to: 4, recovered: true, snapshot: null, operations: [], more: true });
  assert.equal(repairs(), 1);
});

test("backoff grows, is bounded and spread", () => {
  assert.equal(backoff(0, () => 0), 250);
  assert.equal(backoff(0, () => 1), 500);
  assert.equal(backoff(3, () => 1), 4000);
  assert.equal(backoff(1e6, () => 1), 30_000);
});

class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }
  readyState = 1;
  sent = [];
  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    FakeSocket.all.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close(code) {
    this.readyState = 3;
    this.closedWith = code;
  }
  types() {
    return this.sent.map((f) => f.type);
  }
  reply(frame) {
    this.onmessage({ data: JSON.stringify(frame) });
  }
  broadcast(frame) {
    this.onmessage({ data: new TextEncoder().encode(JSON.stringify(frame)).buffer });
  }
  lose(code, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

async function join(joined = {}) {
  await settle();
  const ws = FakeSocket.last;
  ws.onopen();
  await settle();
  ws.reply({ type: "hello", connection_id: `c${FakeSocket.all.length}`, heartbeat_ms: 10_000 });
  ws.reply({ type: "auth_result", ok: true, user: { id: "1", name: "ada" }, color: "#112233" });
  ws.reply({ type: "joined_document", epoch: "e", seq: 0, recovered: true, snapshot: null, operations: [], more: false, presence: [], ...joined });
  return ws;
}

function open(options = {}) {
  const seen = [];
  const c = connect({
    document: "a:b",
    url: "https://example.test/ws/documents/",
    WebSocket: FakeSocket,
    random: () => 1,
    onStatus: (s) => seen.push(s.state),
    ...options,
  });
  return { c, seen };
}

beforeEach(() => {
  FakeSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
});
afterEach(() => mock.timers.reset());

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
  mock.timers.tick(700);
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
  mock.timers.tick(1000);
  await settle();
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
