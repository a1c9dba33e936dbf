// @ts-check
/** @typedef {import("./tandem.d.ts").Member} Member */

/** How others see a member: the chat name it tells, else its user's name. @param {Member} m */
export const nameOf = (m) => (typeof m.state?.name === "string" && m.state.name.slice(0, 64)) || m.user_name || "somebody";

/** A colour that is safe to hand to a style. @param {Member} m */
export const colorOf = (m) => (/^#[0-9a-f]{6}$/i.test(m.color) ? m.color : "#7f8ea3");

/** The chips that say who is here. */
export class People {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
  }

  /** @param {Map<string, Member>} members @param {string} me our connection's ID */
  show(members, me) {
    const order = [...members.values()].sort((a, b) => Number(b.connection_id === me) - Number(a.connection_id === me) || nameOf(a).localeCompare(nameOf(b)));
    this.list.replaceChildren(...order.map((m) => this.#chip(m, m.connection_id === me)));
  }

  /** @param {Member} m @param {boolean} mine */
  #chip(m, mine) {
    const chip = document.createElement("li");
    chip.style.setProperty("--who", colorOf(m));
    chip.dataset.connection = m.connection_id;
    const name = document.createElement("span");
    name.textContent = nameOf(m);
    chip.title = m.user_name;
    chip.append(name);
    const note = mine ? "you" : m.state?.typing ? "typing…" : "";
    if (note) {
      const small = document.createElement("small");
      small.textContent = note;
      chip.append(small);
    }
    return chip;
  }
}
