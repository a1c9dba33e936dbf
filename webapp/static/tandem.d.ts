/** An operation as it stands in the document's log. */
export interface Operation {
  epoch: string;
  /** counts from 1 without a gap within one epoch */
  seq: number;
  id: string;
  connection_id: string;
  user_id: string;
  payload: any;
  /** RFC 3339 */
  at: string;
}

/** What `joined_document` and `sync_response` have in common. */
export interface History {
  epoch: string;
  /** the log's head, in `joined_document` */
  seq?: number;
  /** the log's head, in `sync_response` */
  to?: number;
  recovered: boolean;
  snapshot: { seq: number; payload: any } | null;
  operations: Operation[];
  more: boolean;
}

/** One connection present in the document. */
export interface Member {
  connection_id: string;
  user_id: string;
  user_name: string;
  color: string;
  state?: any;
}

export interface Status {
  /**
   * connecting → authenticated → joined; waiting: lost, coming back in
   * `retryInMs`; forbidden: logged in, but not allowed in this document (any
   * more); closed: for good, `code` and `reason` say why (4401 with `logout`,
   * `revoked`, `expired` or `gone`: the session ended).
   */
  state: "connecting" | "authenticated" | "joined" | "waiting" | "forbidden" | "closed";
  /** down: work is refused until it is up again; it is kept and sent then */
  redis: "up" | "down";
  code?: number;
  reason?: string;
  retryInMs?: number;
}

export interface Ack {
  epoch: string;
  seq: number;
  /** it had been stored before: an answer was lost on the way */
  duplicate: boolean;
}

/** Callbacks run in the order of what happened; what one throws is reported as not caught, and the next one runs. */
export interface Options {
  /** 1 to 128 characters of A-Za-z0-9._~:- */
  document: string;
  /** where documents are served; default "/ws/documents/" of this page's host */
  url?: string;
  /** "#rrggbb"; default: derived from the user by the server */
  color?: string;
  /** for pages that cannot send the cookie: returns a one-time ticket */
  ticket?: () => Promise<string>;
  /** sets the cookie again; default POST /api/session/renew */
  renew?: () => Promise<unknown>;
  /** unacknowledged operations kept; default 1000, more are rejected with TOO_MANY */
  maxPending?: number;
  /** operations under way at once; default 32; with 1 a refused one never changes places with a later one */
  inFlight?: number;
  /** closes the connection when it aborts */
  signal?: AbortSignal;

  /** start over from this snapshot, or from nothing: first join, log lost, position trimmed */
  onReset?(snapshot: any | null, c: Connection): void;
  /** each operation once, in order; one's own too */
  onOperation?(op: Operation, c: Connection): void;
  onPresence?(members: Map<string, Member>, c: Connection): void;
  /** another page or socket of this session wrote to it */
  onSessionChanged?(change: { set: Record<string, any>; delete: string[] }, c: Connection): void;
  onSessionExpiring?(inMs: number, c: Connection): void;
  onStatus?(status: Status, c: Connection): void;
  /** what no promise is rejected with: a presence state that is too large, a document that may not be joined */
  onError?(error: TandemError, c: Connection): void;

  /** for tests */
  WebSocket?: typeof WebSocket;
  random?: () => number;
}

export class TandemError extends Error {
  /** an error code of the protocol, or DISCONNECTED, CLOSED, TOO_MANY */
  readonly code: string;
  /** where the server said when it may pass */
  readonly retryAfterMs?: number;
  constructor(code: string, message?: string, retryAfterMs?: number);
}

export class Connection {
  /** the server's name for this connection; another one after a reconnect */
  readonly id: string;
  readonly user: { id: string; name: string } | null;
  readonly color: string;
  /** everybody present, by connection ID, oneself too; empty while not joined */
  readonly members: Map<string, Member>;
  readonly status: Status;
  /** up to where operations were applied; undefined before the first join */
  readonly position: { epoch: string; seq: number } | undefined;
  /** operations not acknowledged yet */
  readonly unacknowledged: number;
  /** resolves once Redis has it; the same ID while it waits: the same promise */
  publish(payload: any, id?: string): Promise<Ack>;
  /** at most every 50 ms, the newest; told again after a reconnect; 4096 bytes of JSON at most */
  setPresence(state: any): void;
  /** keeps `payload` as what the document is at `position`; CONFLICT: somebody was faster */
  snapshot(payload: any): Promise<unknown>;
  /** the page's session: all that is readable, or `keys` */
  sessionGet(keys?: string[]): Promise<Record<string, any>>;
  /** writes all or nothing; resolves with what is readable then */
  sessionSet(set?: Record<string, any>, remove?: string[]): Promise<Record<string, any>>;
  /** when waiting, opens now; when forbidden, asks again */
  retry(): void;
  /** leaves for good; what is not answered is rejected with CLOSED */
  close(): void;
}

/** Throws a TandemError for a document or colour that no server would take. */
export function connect(options: Options): Connection;
export function backoff(attempt: number, random?: () => number): number;
