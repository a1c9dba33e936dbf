// @ts-check

/** Why something was refused, or will not be answered any more. */
export class TandemError extends Error {
  /** @param {string} code @param {string} [message] @param {number} [retryAfterMs] */
  constructor(code, message, retryAfterMs) {
    super(message || code);
    this.name = "TandemError";
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}
