// As much of node:assert/strict as the tests use, for a page that runs them.
const show = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));

function fail(message, actual, expected) {
  throw new Error(`${message ? `${message}: ` : ""}got ${show(actual)}, want ${show(expected)}`);
}

function same(a, b) {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || !a || !b || Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}

function matches(error, want) {
  for (const [key, value] of Object.entries(want)) if (!same(error?.[key], value)) fail(`error's ${key} (${error})`, error?.[key], value);
}

export default {
  ok: (value, message) => value || fail(message, value, true),
  equal: (a, b, message) => Object.is(a, b) || fail(message, a, b),
  notEqual: (a, b, message) => !Object.is(a, b) || fail(message, a, `anything but ${show(b)}`),
  deepEqual: (a, b, message) => same(a, b) || fail(message, a, b),
  throws(fn, want) {
    try {
      fn();
    } catch (error) {
      return matches(error, want);
    }
    fail("", "no exception", want);
  },
  async rejects(promise, want) {
    let error;
    try {
      await promise;
    } catch (thrown) {
      error = thrown;
    }
    if (error === undefined) fail("", "no rejection", want);
    matches(error, want);
  },
};
