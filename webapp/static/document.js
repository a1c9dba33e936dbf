// @ts-check
/** The shared document's page: lines, who is here, where they write. */
import { connect } from "./tandem.js";
import { Lines } from "./lines.js";
import { People } from "./people.js";
import { Sheet } from "./sheet.js";

/** Every so many operations whoever sent the last one keeps a snapshot. */
const SNAPSHOT_EVERY = 200;

/** Refusals that the status tells, or that only cost a snapshot. */
const SILENT = new Set(["CLOSED", "CONFLICT", "DISCONNECTED"]);

/** @param {string} id @returns {any} */
const el = (id) => document.getElementById(id);
const { document: name, userName, login } = el("app").dataset;

const lines = new Lines();
const people = new People(el("presence"));
const sheet = new Sheet(el("lines"), {
  edit: (line, text) => send({ op: "edit", line, text }),
  done: (line, done) => send({ op: "done", line, done }),
  remove: (line) => send({ op: "remove", line }),
  caret: (state) => tell(state),
});

/** What the others are told about us. */
let state = { name: el("chat-name").value || userName };
const tell = (/** @type {object} */ change) => connection.setPresence((state = { ...state, ...change }));

async function send(/** @type {object} */ payload) {
  const stored = connection.publish(payload);
  showUnsaved();
  try {
    const ack = await stored;
    if (ack.seq % SNAPSHOT_EVERY === 0) await connection.snapshot(lines.snapshot());
  } catch (error) {
    if (!SILENT.has(error.code)) banner(`Not saved: ${error.message}`);
  } finally {
    showUnsaved();
  }
}

const connection = connect({
  document: name,
  inFlight: 1,
  onReset(snapshot) {
    lines.reset(snapshot);
    sheet.reset(lines);
  },
  onOperation(op) {
    const line = lines.apply(op.payload);
    if (line) sheet.show(line, lines.all.get(line));
    el("position").textContent = `Operation ${op.seq}`;
  },
  onPresence(members, c) {
    people.show(members, c.id);
    sheet.carets(members, c.id);
  },
  onSessionChanged(change) {
    if ("chat.name" in change.set || change.delete.includes("chat.name")) showName(change.set["chat.name"]);
  },
  onSessionExpiring(ms) {
    banner(`You will be logged out in ${Math.ceil(ms / 1000)} seconds.`, "Stay", () => connection.sessionGet([]));
  },
  onStatus: (status) => showStatus(status),
});
tell({});

const TEXT = { connecting: "Connecting…", authenticated: "Joining…", joined: "Live", waiting: "Reconnecting…", forbidden: "No access", closed: "Disconnected" };
const ENDED = {
  logout: "You have logged out.",
  revoked: "This session was ended elsewhere.",
  expired: "Your session has expired.",
  gone: "Your session is gone.",
};

/** @param {import("./tandem.d.ts").Status} status */
function showStatus(status) {
  const away = status.state === "joined" && status.redis === "down";
  const pill = el("status");
  pill.dataset.state = away ? "down" : status.state === "closed" || status.state === "forbidden" ? "ended" : status.state;
  pill.textContent = away ? "Store away: changes wait" : TEXT[status.state];
  const live = status.state === "joined" || status.state === "waiting";
  for (const control of document.querySelectorAll("#add input, #add button, #lines input, #lines button")) {
    /** @type {any} */ (control).disabled = !live;
  }
  el("chat-name").disabled = status.state !== "joined";
  if (status.state === "joined") banner("");
  if (status.state === "forbidden") banner("You may not be in this document.", "Try again", () => connection.retry());
  if (status.state === "closed" && status.code !== 1000) {
    const why = status.code === 4401 ? ENDED[status.reason ?? ""] ?? "You are not logged in." : `The connection was closed: ${status.reason || status.code}.`;
    banner(why, "Log in", () => location.assign(login ?? "/login"));
  }
}

function showUnsaved() {
  const n = connection.unacknowledged;
  el("unsaved").textContent = n === 0 ? "" : `· ${n} not saved yet`;
}

/** @param {string} text @param {string} [action] @param {() => unknown} [run] */
function banner(text, action, run) {
  const p = el("banner");
  p.textContent = text;
  p.hidden = text === "";
  if (!action) return;
  const button = document.createElement("button");
  button.className = "quiet";
  button.textContent = action;
  button.onclick = () => {
    banner("");
    run?.();
  };
  p.append(" ", button);
}

/** @param {unknown} value */
function showName(value) {
  const input = el("chat-name");
  if (document.activeElement !== input) input.value = typeof value === "string" ? value : "";
  tell({ name: (typeof value === "string" && value) || userName });
}

el("name-form").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  el("chat-name").blur();
});
el("chat-name").addEventListener("change", async () => {
  const value = el("chat-name").value.trim();
  try {
    const values = await (value ? connection.sessionSet({ "chat.name": value }) : connection.sessionSet({}, ["chat.name"]));
    showName(values["chat.name"]);
  } catch (error) {
    banner(`The name was not saved: ${error.message}`);
  }
});
el("add").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const input = el("new-line");
  if (input.value.trim() === "") return;
  send({ op: "add", line: crypto.getRandomValues(new Uint32Array(3)).join("-"), text: input.value.trim() });
  input.value = "";
});
