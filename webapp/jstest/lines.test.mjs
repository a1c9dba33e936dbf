import assert from "node:assert/strict";
import { test } from "node:test";
import { Lines } from "../static/lines.js";

const texts = (lines) => [...lines.all.values()].map((l) => `${l.done ? "x" : "-"} ${l.text}`);

test("operations make lines", () => {
  const lines = new Lines();
  for (const op of [
    { op: "add", line: "a", text: "one" },
    { op: "add", line: "b", text: "two" },
    { op: "add", line: "a", text: "again" },
    { op: "edit", line: "b", text: "2" },
    { op: "done", line: "a", done: true },
    { op: "add", line: "c" },
    { op: "remove", line: "c" },
    { op: "edit", line: "c", text: "too late" },
  ]) lines.apply(op);
  assert.deepEqual(texts(lines), ["x one", "- 2"]);
});

test("what others may publish changes nothing", () => {
  const lines = new Lines();
  for (const payload of [null, 1, "x", [], {}, { op: "add" }, { op: "add", line: 1 }, { op: "fly", line: "a" }, { op: "edit", line: "__proto__", text: "x" }]) {
    assert.equal(lines.apply(payload), "");
  }
  lines.apply({ op: "add", line: "a", text: { not: "text" } });
  assert.deepEqual(texts(lines), ["- [object Object]"]);
});

test("a snapshot is what it was made of", () => {
  const lines = new Lines();
  lines.apply({ op: "add", line: "a", text: "one" });
  lines.apply({ op: "done", line: "a", done: true });
  const again = new Lines();
  again.reset(JSON.parse(JSON.stringify(lines.snapshot())));
  assert.deepEqual(texts(again), texts(lines));
  for (const strange of [null, 1, {}, { lines: 1 }, { lines: [null, { id: 1 }] }]) {
    again.reset(strange);
    assert.deepEqual(texts(again), []);
  }
});
