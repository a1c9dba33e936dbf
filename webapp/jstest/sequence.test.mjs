import assert from "node:assert/strict";
import { test } from "node:test";
import { Sequence } from "../static/sequence.js";
import { op, ops } from "./harness.mjs";

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

