import assert from "node:assert/strict";
import { test } from "node:test";
import { TandemError } from "../static/errors.js";
import { Outbox } from "../static/outbox.js";

function outbox(options = {}) {
  const sent = [];
  return { sent, box: new Outbox(options, (text) => sent.push(JSON.parse(text))) };
}

test("an operation is what it was when it was published", () => {
  const { box, sent } = outbox();
  const payload = { n: 1 };
  box.publish(payload, "a");
  payload.n = 2;
  box.flush("joined");
  assert.deepEqual(sent, [{ type: "operation", id: "a", payload: { n: 1 } }]);
});

test("what no server would take is refused here", async () => {
  const { box, sent } = outbox();
  const cycle = {};
  cycle.self = cycle;
  for (const [payload, id] of [[undefined, "a"], [() => {}, "a"], [cycle, "a"], [10n, "a"], [1, ""], [1, "~join"], [1, "é".repeat(33)], [1, 7]]) {
    await assert.rejects(box.publish(payload, id), { code: "BAD_MESSAGE" });
  }
  box.maxBytes = 100;
  const large = box.publish("é".repeat(40), "large");
  const small = box.publish("e".repeat(40), "small");
  box.flush("joined");
  await assert.rejects(large, { code: "TOO_LARGE" });
  assert.deepEqual(sent.map((f) => f.id), ["small"]);
  box.settle("small", { seq: 1 });
  assert.deepEqual(await small, { seq: 1 });
});

test("what waits is bounded, and so is what is under way", async () => {
  const { box, sent } = outbox({ maxPending: 3, inFlight: 2 });
  for (const id of ["a", "b", "c"]) box.publish(0, id);
  await assert.rejects(box.publish(0, "d"), { code: "TOO_MANY" });
  box.flush("joined");
  assert.deepEqual(sent.map((f) => f.id), ["a", "b"]);
  box.settle("a", {});
  box.flush("joined");
  assert.deepEqual(sent.map((f) => f.id), ["a", "b", "c"]);
  for (let i = 0; i < 32; i++) box.request({ type: "session_get" }, false);
  await assert.rejects(box.request({ type: "session_get" }, false), { code: "TOO_MANY" });
});

test("an ID that waits already is the same operation", async () => {
  const { box, sent } = outbox();
  const [one, two] = [box.publish(0, "a"), box.publish(0, "a")];
  box.flush("joined");
  assert.equal(sent.length, 1);
  box.settle("a", { seq: 7 });
  assert.deepEqual([await one, await two], [{ seq: 7 }, { seq: 7 }]);
});

test("requests go as soon as they may", () => {
  const { box, sent } = outbox();
  box.request({ type: "session_get" }, false);
  box.request({ type: "snapshot" }, true);
  box.flush("waiting");
  assert.equal(sent.length, 0);
  box.flush("authenticated");
  assert.deepEqual(sent.map((f) => f.type), ["session_get"]);
  box.flush("joined");
  assert.deepEqual(sent.map((f) => f.type), ["session_get", "snapshot"]);
});

test("a lost link loses requests that were sent, and nothing else", async () => {
  const { box, sent } = outbox();
  const asked = box.request({ type: "session_get" }, false);
  const kept = box.publish(0, "a");
  box.flush("joined");
  const waits = box.request({ type: "session_get" }, false);
  box.lost();
  await assert.rejects(asked, { code: "DISCONNECTED" });
  box.flush("joined");
  assert.deepEqual(sent.slice(2).map((f) => f.type), ["session_get", "operation"]);
  box.end(new TandemError("CLOSED"));
  await assert.rejects(waits, { code: "CLOSED" });
  await assert.rejects(kept, { code: "CLOSED" });
  assert.equal(box.unacknowledged, 0);
});
