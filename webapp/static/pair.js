// @ts-check
/** Both sides of a pair, each with its own socket. */
const pair = document.getElementById("pair")?.dataset.pair ?? "";

const WHY = {
  1001: "The server is going away.",
  1012: "The server restarts.",
  4401: "You are not logged in any more.",
  4409: "This side is taken.",
  4503: "The store is away for too long.",
};

class Side {
  /** @param {HTMLElement} root */
  constructor(root) {
    const find = (/** @type {string} */ selector) => /** @type {any} */ (root.querySelector(selector));
    this.name = root.dataset.side ?? "";
    this.path = `/${this.name}/${encodeURIComponent(pair)}`;
    this.pill = find(".pill");
    this.notice = find(".notice");
    this.log = find(".log");
    this.input = find("input");
    this.send = find("form button");
    this.connectButton = find("[data-action=connect]");
    this.leaveButton = find("[data-action=leave]");
    find("form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      if (this.input.value === "") return;
      this.ws?.send(this.input.value);
      this.write(this.input.value, "sent");
      this.input.value = "";
    });
    this.connectButton.onclick = () => this.connect();
    this.leaveButton.onclick = () => this.ws?.close(1000);
    this.connect();
  }

  connect() {
    this.opened = false;
    this.show("connecting", "Connecting…");
    this.tell("");
    this.ws = new WebSocket(location.origin.replace("http", "ws") + this.path);
    this.ws.onopen = () => {
      this.opened = true;
      this.show("open", "Connected");
    };
    this.ws.onmessage = (event) => this.write(typeof event.data === "string" ? event.data : `${event.data.size} bytes`, "got");
    this.ws.onclose = (event) => this.closed(event);
  }

  /** @param {CloseEvent} event */
  async closed(event) {
    if (this.opened) {
      this.show("closed", "Not connected");
      this.write(WHY[event.code] ?? event.reason ?? "Closed.", "note");
      if (event.code === 1000) this.write("You left.", "note");
      return;
    }
    // A browser does not say why an upgrade was refused: ask without one.
    this.show("refused", "Refused");
    this.tell(await this.refusal());
  }

  async refusal() {
    try {
      const answer = await fetch(this.path, { headers: { Accept: "application/problem+json" } });
      if (answer.status === 404) return "No pairs are served here.";
      if (answer.status === 426) return "The side may be taken by another window, or this page's origin is not allowed.";
      const problem = await answer.json();
      return problem.detail || problem.title || `Refused: ${answer.status}.`;
    } catch {
      return "The server cannot be reached.";
    }
  }

  /** @param {string} state @param {string} text */
  show(state, text) {
    this.pill.dataset.state = state;
    this.pill.textContent = text;
    const open = state === "open";
    this.input.disabled = this.send.disabled = !open;
    this.leaveButton.hidden = !open;
    this.connectButton.hidden = open || state === "connecting";
  }

  /** @param {string} text */
  tell(text) {
    this.notice.textContent = text;
    this.notice.hidden = text === "";
  }

  /** @param {string} text @param {string} kind */
  write(text, kind) {
    if (text === "") return;
    const item = document.createElement("li");
    item.className = kind;
    item.textContent = text;
    this.log.append(item);
    while (this.log.childElementCount > 500) this.log.firstElementChild.remove();
    this.log.scrollTop = this.log.scrollHeight;
  }
}

for (const root of document.querySelectorAll("[data-side]")) new Side(/** @type {HTMLElement} */ (root));
