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
   * `retryInMs`; closed: for good, `code` and `reason` say why (4401 with
   * `logout`, `revoked`, `expired` or `gone`: the session ended).
   */
  state: "connecting" | "authenticated" | "joined" | "waiting" | "closed";
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

/** Callbacks run in the order of what happened and must not throw. */
export interface Options {
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

  /** start over from this snapshot, or from nothing: first join, log lost, position trimmed */
  onReset?(snapshot: any | null, c: Connection): void;
  /** each operation once, in order; one's own too */
  onOperation?(op: Operation, c: Connection): void;
  onPresence?(members: Map<string, Member>, c: Connection): void;
  /** another page or socket of this session wrote to it */
  onSessionChanged?(change: { set: Record<string, any>; delete: string[] }, c: Connection): void;
  onSessionExpiring?(inMs: number, c: Connection): void;
  onStatus?(status: Status, c: Connection): void;
  onError?(error: TandemError, c: Connection): void;

  /** for tests */
  WebSocket?: typeof WebSocket;
  random?: () => number;
}

export class TandemError extends Error {
  /** an error code of the protocol, or DISCONNECTED, CLOSED, TOO_MANY */
  code: string;
  constructor(code: string, message?: string);
}

export class Connection {
  readonly id: string;
  readonly user: { id: string; name: string } | null;
  readonly color: string;
  readonly members: Map<string, Member>;
  readonly status: Status;
  readonly unacknowledged: number;
  publish(payload: any, id?: string): Promise<Ack>;
  setPresence(state: any): void;
  snapshot(payload: any): Promise<unknown>;
  sessionGet(keys?: string[]): Promise<Record<string, any>>;
  sessionSet(set?: Record<string, any>, remove?: string[]): Promise<Record<string, any>>;
  retry(): void;
  close(): void;
}

export function connect(options: Options): Connection;
/** Close codes after which coming back makes sense. */
export const RETRY: Set<number>;
export function backoff(attempt: number, random?: () => number): number;
