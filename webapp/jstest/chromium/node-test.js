// As much of node:test as the tests use, for a page that runs them.
const tests = [];
const before = [];
const after = [];

export const test = (name, fn) => tests.push({ name, fn });
export const beforeEach = (fn) => before.push(fn);
export const afterEach = (fn) => after.push(fn);

/** Takes what the modules loaded so far have told; each has hooks of its own. */
export const take = () => ({ tests: tests.splice(0), before: before.splice(0), after: after.splice(0) });

const real = { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout, Date: globalThis.Date };
let now = 0;
let counter = 0;
let timers = new Map();

function elapse() {
  for (;;) {
    const due = [...timers].filter(([, t]) => t.at <= now).sort(([a, x], [b, y]) => x.at - y.at || a - b)[0];
    if (!due) return;
    timers.delete(due[0]);
    due[1].fn();
  }
}

export const mock = {
  timers: {
    enable() {
      now = 0;
      timers = new Map();
      globalThis.setTimeout = (fn, ms = 0) => {
        timers.set(++counter, { fn, at: now + ms });
        return counter;
      };
      globalThis.clearTimeout = (id) => timers.delete(id);
      globalThis.Date = class extends real.Date {
        static now = () => now;
      };
    },
    tick(ms) {
      now += ms;
      elapse();
    },
    setTime(ms) {
      now = ms;
      elapse();
    },
    reset: () => Object.assign(globalThis, real),
  },
};
