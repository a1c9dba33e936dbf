// @ts-check
/**
 * @typedef {import("./tandem.d.ts").Operation} Operation
 * @typedef {import("./tandem.d.ts").History} History
 */

/** Operations kept while an earlier one is missing; beyond that they are read from the log again. */
const AHEAD = 4096;

/**
 * Puts operations in order: `live` takes broadcasts as they come, `history`
 * what the server answers to a join or a sync. `apply` gets each operation
 * once; `reset` starts over; `repair` is asked for what is missing.
 */
export class Sequence {
  epoch = "";
  seq = 0;
  /** @type {Map<number, Operation>} */
  #ahead = new Map();

  /** @param {{apply(op: Operation): void, reset(snapshot: unknown): void, repair(): void}} to */
  constructor(to) {
    this.to = to;
  }

  /** Where we are, to be sent as `since`; undefined before the first history. */
  position() {
    return this.epoch ? { epoch: this.epoch, seq: this.seq } : undefined;
  }

  /** @param {Operation} op */
  live(op) {
    if (op.epoch !== this.epoch) {
      this.to.repair(); // the log began a new life
      return;
    }
    if (op.seq <= this.seq) return;
    if (this.#ahead.size < AHEAD) this.#ahead.set(op.seq, op);
    this.#drain();
    if (op.seq > this.seq) this.to.repair();
  }

  /** @param {History} h */
  history(h) {
    const operations = h.operations ?? [];
    const over = !h.recovered || h.epoch !== this.epoch;
    if (over) this.#startOver(h, operations);
    const before = this.seq;
    for (const op of operations) {
      if (op.seq === this.seq + 1) this.#apply(op);
    }
    this.#drain();
    // Without progress asking again would only get the same answer.
    const progress = over || this.seq > before;
    if (progress && (h.more || this.#ahead.size > 0)) this.to.repair();
  }

  /** @param {History} h @param {Operation[]} operations */
  #startOver(h, operations) {
    const kept = h.snapshot?.seq ?? 0;
    const head = h.to ?? h.seq ?? kept;
    this.epoch = h.epoch;
    this.seq = operations.length ? Math.max(kept, operations[0].seq - 1) : Math.max(kept, head);
    for (const [seq, op] of this.#ahead) {
      if (op.epoch !== h.epoch || seq <= this.seq) this.#ahead.delete(seq);
    }
    this.to.reset(h.snapshot?.payload ?? null);
  }

  #drain() {
    for (let op; (op = this.#ahead.get(this.seq + 1)); ) this.#apply(op);
  }

  /** @param {Operation} op */
  #apply(op) {
    this.seq = op.seq;
    this.#ahead.delete(op.seq);
    this.to.apply(op);
  }
}
