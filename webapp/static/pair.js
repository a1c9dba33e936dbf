// @ts-check
/** The sides of a pair that this page opens, each with its own socket. */
import { RETRY, backoff } from "./link.js";

const { pair = "", login = "/login" } = document.getElementById("pair")?.dataset ?? {};

/** Why the server closed for good, by close code. */
const WHY = {
  1000: "You left this side.",
  1009: "The message was too large.",
  4400: "The server did not understand this page. Load it again.",
  4403: "This is forbidden.",
  4409: "This side was taken over: by another window, or because this one was unreachable.",
};
const ENDED = {
  logout: "You have logged out.",
  revoked: "This session was ended elsewhere.",
  expired: "Your session has expired.",
};

class Side {
  /** @param {HTMLElement} root */
  constructor(root) {
    const find = (/** @type {string} */ selector) => /** @type {any} */ (root.querySelector(selector));
    this.name = root.dataset.side ?? "";
    this.other = this.name === "left" ? "right" : "left";
    this.path = `/${this.name}/${encodeURIComponent(pair)}`;
    this.pill = find(".pill");
    this.notice = find(".notice");
    this.log = find(".log");
    this.input = find("input");
    this.send = find("form button");
    this.connectButton = find("[data-action=connect]");
    this.leaveButton = find("[data-action=leave]");
    this.attempt = 0;
    this.comeBackAt = 0;
    this.unique = "";
    find("form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.submit();
    });
    this.connectButton.onclick = () => {
      this.attempt = 0;
      this.connect();
    };
    this.leaveButton.onclick = () => this.leave();
    const invite = find(".invite");
    invite?.addEventListener("toggle", () => (invite.open ? this.leave() : this.connect()));
    this.connect();
  }

  submit() {
    if (this.input.value === "" || this.ws?.readyState !== WebSocket.OPEN) return;
    this.ws.send(JSON.stringify({ type: "message", data: this.input.value }));
    this.write(this.input.value, "sent");
    this.input.value = "";
  }

  connect() {
    if (this.ws) return;
    clearTimeout(this.timer);
    this.wanted = true;
    this.show("connecting", "Connecting…");
    this.tell("");
    let opened = false;
    const ws = new WebSocket(location.origin.replace("http", "ws") + this.path, "tandem.pair.v1");
    this.ws = ws;
    ws.onopen = () => {
      opened = true;
      this.show("waiting", `Waiting for the ${this.other} side`);
    };
    ws.onmessage = (event) => this.receive(JSON.parse(event.data));
    ws.onclose = (event) => {
      if (this.ws !== ws) return;
      this.ws = undefined;
      if (opened) this.closed(event.code, event.reason);
      else this.refused();
    };
  }

  /** Leaves the side, and does not come back by itself. */
  leave() {
    const ws = this.ws;
    this.ws = undefined;
    this.wanted = false;
    ws?.close(1000);
    clearTimeout(this.timer);
    this.tell("");
    if (this.pill.dataset.state !== "closed") this.ended(1000, "");
  }

  /** @param {any} frame */
  receive(frame) {
    this.attempt = 0;
    switch (frame.type) {
      case "paired":
        this.write(this.unique && this.unique !== frame.unique_id ? `Paired anew as ${frame.unique_id}.` : `Paired as ${frame.unique_id}.`, "note");
        this.unique = frame.unique_id;
        this.show("open", "Paired");
        break;
      case "message": {
        const data = frame.binary ? "binary data" : typeof frame.data === "string" ? frame.data : JSON.stringify(frame.data);
        this.write(frame.from === this.name ? `${this.unique} | ${frame.index} | ${data}` : data, "got");
        break;
      }
      case "counterpart_left":
        this.write(`The ${this.other} side left.`, "note");
        this.show("waiting", `Waiting for the ${this.other} side`);
        break;
      case "error":
        this.write(frame.message, "note");
        break;
      case "status":
        this.tell(frame.redis === "down" ? "The store is away: messages wait until it is back." : "");
        break;
      case "reconnect":
        this.comeBackAt = Date.now() + frame.after_ms;
    }
  }

  /** @param {number} code @param {string} reason */
  closed(code, reason) {
    if (!RETRY.has(code)) {
      this.ended(code, reason);
      return;
    }
    const told = Math.max(0, this.comeBackAt - Date.now());
    this.again(this.comeBackAt ? told : backoff(this.attempt++), code === 1012 ? "The server restarts." : "The connection was lost.");
  }

  /** @param {number} code @param {string} reason */
  ended(code, reason) {
    this.show("closed", "Not connected");
    if (code === 4401) this.tell(ENDED[reason] ?? "You are not logged in any more.", true);
    else this.write(WHY[code] ?? (reason || `Closed (${code}).`), "note");
  }

  /** Opens the side again after that many milliseconds. @param {number} wait @param {string} why */
  again(wait, why) {
    this.comeBackAt = 0;
    this.show("waiting", "Reconnecting…");
    this.tell(`${why} Trying again${wait > 1500 ? ` in ${Math.ceil(wait / 1000)} seconds` : ""}.`);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  /** A browser does not say why an upgrade was refused: the server is asked. */
  async refused() {
    const pause = backoff(this.attempt++);
    let status = 0, wait = pause, detail = "The server cannot be reached.";
    try {
      const answer = await fetch(this.path, { method: "OPTIONS", headers: { Accept: "application/problem+json" } });
      status = answer.status;
      wait = Math.max(pause, Number(answer.headers.get("Retry-After") ?? 0) * 1000);
      detail = status === 204 ? "The connection could not be opened." : (await answer.json()).detail;
    } catch {} // there was no answer, or it is somebody else's
    if (this.ws || !this.wanted) return; // a hand was quicker
    if (status < 300 || status === 429 || status >= 500) {
      this.again(wait, detail || `The server answers ${status}.`);
      return;
    }
    this.show("refused", "Refused");
    this.tell(status === 404 ? "No pairs are served here." : detail || `Refused: ${status}.`, status === 401);
  }

  /** @param {string} state @param {string} text */
  show(state, text) {
    this.pill.dataset.state = state;
    this.pill.textContent = text;
    const open = this.ws?.readyState === WebSocket.OPEN;
    this.input.disabled = this.send.disabled = !open;
    this.leaveButton.hidden = !open;
    this.connectButton.hidden = open || state === "connecting";
  }

  /** @param {string} text @param {boolean} [offerLogin] */
  tell(text, offerLogin = false) {
    this.notice.textContent = text;
    this.notice.hidden = text === "";
    if (offerLogin) {
      const link = document.createElement("a");
      link.href = login;
      link.textContent = "Log in";
      this.notice.append(" ", link);
    }
  }

  /** @param {string} text @param {string} kind */
  write(text, kind) {
    const item = document.createElement("li");
    item.className = kind;
    item.textContent = text;
    this.log.append(item);
    while (this.log.childElementCount > 500) this.log.firstElementChild.remove();
    this.log.scrollTop = this.log.scrollHeight;
  }
}

// The whole address, as this browser sees it: it is sent to other devices.
for (const link of document.querySelectorAll("a[data-link]")) link.textContent = /** @type {HTMLAnchorElement} */ (link).href;
for (const root of document.querySelectorAll("[data-side]")) new Side(/** @type {HTMLElement} */ (root));
