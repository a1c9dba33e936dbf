// Runs the test files named in the page's address, one after the other, and
// leaves [{file, name, error}] in `results`.
import { take } from "./node-test.js";

async function run() {
  const results = [];
  let stray = [];
  addEventListener("unhandledrejection", (event) => stray.push(`not caught: ${event.reason?.stack ?? event.reason}`));
  addEventListener("error", (event) => stray.push(`not caught: ${event.message}`));
  for (const file of new URLSearchParams(location.search).getAll("file")) {
    await import(`../${file}`);
    const { tests, before, after } = take();
    for (const { name, fn } of tests) {
      stray = [];
      for (const hook of before) hook();
      try {
        await fn();
      } catch (error) {
        stray.push(error.stack ?? String(error));
      }
      for (const hook of after) hook();
      await new Promise((resolve) => setTimeout(resolve)); // what was not caught is told in a task of its own
      results.push({ file, name, error: stray.join("\n") });
    }
  }
  return results;
}

globalThis.results = run();
