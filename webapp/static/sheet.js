// @ts-check
import { colorOf, nameOf } from "./people.js";
/**
 * @typedef {import("./tandem.d.ts").Member} Member
 * @typedef {import("./lines.js").Line} Line
 * @typedef {{item: HTMLLIElement, text: HTMLInputElement, done: HTMLInputElement, sending: boolean, dirty: boolean}} Row
 */

/** Typing is shown for this long after the last key. */
const TYPING_MS = 1500;

/** A name tag this near to the right edge is shown to the left of its caret. */
const FLAG_PX = 150;

/** Shows lines as inputs, and the carets of others in them. */
export class Sheet {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {Map<string, HTMLElement>} */
  #carets = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #quiet;
  #ruler = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));

  /**
   * @param {HTMLElement} list
   * @param {{edit(line: string, text: string): Promise<void>, done(line: string, done: boolean): unknown,
   *   remove(line: string): unknown, caret(state: object): void}} on
   */
  constructor(list, on) {
    this.list = list;
    this.on = on;
  }

  /** @param {import("./lines.js").Lines} lines */
  reset(lines) {
    this.#rows.clear();
    this.list.replaceChildren();
    for (const line of lines.all.values()) this.show(line.id, line);
  }

  /** Shows a line as it is now; undefined: it is gone. @param {string} id @param {Line | undefined} line */
  show(id, line) {
    let row = this.#rows.get(id);
    if (!line) {
      row?.item.remove();
      this.#rows.delete(id);
      return;
    }
    if (!row) this.#rows.set(id, (row = this.#build(id)));
    row.done.checked = line.done;
    row.item.classList.toggle("done", line.done);
    // What is typed here and not stored yet comes later in the log, and wins.
    if (row.sending || row.dirty || row.text.value === line.text) return;
    const at = row.text.selectionStart;
    row.text.value = line.text;
    if (document.activeElement === row.text) row.text.setSelectionRange(at, at);
  }

  /** @param {string} id @returns {Row} */
  #build(id) {
    const item = document.createElement("li");
    item.dataset.line = id;
    const done = document.createElement("input");
    done.type = "checkbox";
    done.setAttribute("aria-label", "Done");
    const box = document.createElement("div");
    box.className = "text";
    const text = document.createElement("input");
    text.maxLength = 2000;
    text.setAttribute("aria-label", "Line");
    text.autocomplete = "off";
    box.append(text);
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "quiet remove";
    remove.textContent = "×";
    remove.setAttribute("aria-label", "Remove line");
    item.append(done, box, remove);
    this.list.append(item);

    const row = { item, text, done, sending: false, dirty: false };
    done.onchange = () => this.on.done(id, done.checked);
    remove.onclick = () => this.on.remove(id);
    text.oninput = () => {
      this.#send(id, row);
      this.#tell(id, text, true);
    };
    for (const event of ["focus", "keyup", "click"]) text.addEventListener(event, () => this.#tell(id, text));
    text.onblur = () => this.on.caret({ line: null, at: 0, typing: false });
    text.onkeydown = (event) => {
      if (event.key === "Enter") text.blur();
    };
    return row;
  }

  /** Sends the newest text of a line: one edit under way, the keys since then in the next. @param {string} id @param {Row} row */
  async #send(id, row) {
    row.dirty = true;
    if (row.sending) return;
    row.sending = true;
    while (row.dirty) {
      row.dirty = false;
      await this.on.edit(id, row.text.value);
    }
    row.sending = false;
  }

  /** @param {string} line @param {HTMLInputElement} text */
  #tell(line, text, typing = false) {
    clearTimeout(this.#quiet);
    const state = { line, at: text.selectionStart ?? 0 };
    if (!typing) return this.on.caret(state);
    this.on.caret({ ...state, typing });
    this.#quiet = setTimeout(() => this.on.caret({ typing: false }), TYPING_MS);
  }

  /** @param {Map<string, Member>} members @param {string} me */
  carets(members, me) {
    for (const [id, caret] of this.#carets) {
      if (!this.#rows.has(members.get(id)?.state?.line)) {
        caret.remove();
        this.#carets.delete(id);
      }
    }
    for (const m of members.values()) {
      const row = this.#rows.get(m.state?.line);
      if (!row || m.connection_id === me) continue;
      let caret = this.#carets.get(m.connection_id);
      if (!caret) {
        caret = document.createElement("div");
        caret.className = "caret";
        caret.append(document.createElement("span"));
        this.#carets.set(m.connection_id, caret);
      }
      /** @type {HTMLElement} */ (caret.firstChild).textContent = nameOf(m);
      caret.style.setProperty("--who", colorOf(m));
      const x = this.#place(row.text, Number(m.state.at) || 0);
      caret.style.setProperty("--x", `${x}px`);
      caret.classList.toggle("flip", x > row.text.clientWidth - FLAG_PX);
      if (caret.parentElement !== row.text.parentElement) row.text.parentElement?.append(caret);
    }
  }

  /** Where the character at is in an input, in pixels from its left edge. @param {HTMLInputElement} text @param {number} at */
  #place(text, at) {
    const style = getComputedStyle(text);
    this.#ruler.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const width = this.#ruler.measureText(text.value.slice(0, at)).width;
    const x = parseFloat(style.paddingLeft) + parseFloat(style.borderLeftWidth) + width - text.scrollLeft;
    return Math.min(Math.max(x, 0), text.clientWidth);
  }
}
