// @ts-check
/**
 * The document that the page shows: lines of text, as operations make them.
 * All replicas of it apply the same operations in the same order, so the
 * newest write of a line wins everywhere alike.
 *
 *   {op: "add", line, text}   {op: "edit", line, text}
 *   {op: "done", line, done}  {op: "remove", line}
 *
 * @typedef {{id: string, text: string, done: boolean}} Line
 */
export class Lines {
  /** @type {Map<string, Line>} in the order in which they were added */
  all = new Map();

  /** @param {any} snapshot what `snapshot` returned once, or null */
  reset(snapshot) {
    this.all.clear();
    for (const line of Array.isArray(snapshot?.lines) ? snapshot.lines : []) {
      if (typeof line?.id === "string") this.all.set(line.id, { id: line.id, text: String(line.text), done: !!line.done });
    }
  }

  snapshot() {
    return { lines: [...this.all.values()] };
  }

  /**
   * Applies one operation; what it does not know, or what comes too late for
   * its line, changes nothing.
   * @param {any} payload
   * @returns {string} the line that changed, or ""
   */
  apply(payload) {
    const { op, line: id } = payload ?? {};
    if (typeof id !== "string") return "";
    const line = this.all.get(id);
    switch (op) {
      case "add":
        if (line) return "";
        this.all.set(id, { id, text: String(payload.text ?? ""), done: false });
        return id;
      case "edit":
        if (line) line.text = String(payload.text ?? "");
        break;
      case "done":
        if (line) line.done = !!payload.done;
        break;
      case "remove":
        this.all.delete(id);
        break;
      default:
        return "";
    }
    return line ? id : "";
  }
}
