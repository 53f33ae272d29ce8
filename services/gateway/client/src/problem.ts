import { reasons, retries } from "./facts.js";
import type { components } from "./schema.js";

export type Problem = components["schemas"]["Problem"];
export type Reason = components["schemas"]["Reason"];

/** Tells a reason that this client knows from one that came later, or from a typing error. */
export function isReason(word: string): word is Reason {
  return reasons.has(word);
}

/** A call that Devpilot refused. The message is a sentence for people, with what to do next. */
export class DevpilotError extends Error {
  override readonly name = "DevpilotError";

  constructor(readonly problem: Problem) {
    super(problem.detail);
  }

  get reason(): Reason {
    return this.problem.reason;
  }

  get status(): number {
    return this.problem.status;
  }

  /** What is wrong with which field of the request. */
  get fields(): Problem["fields"] {
    return this.problem.fields;
  }

  get requestId(): string {
    return this.problem.requestId;
  }

  get retryAfterSeconds(): number | undefined {
    return this.problem.retryAfterSeconds;
  }

  /** What is wrong with a field, wherever in the request it stands; of a list, with the line that is wrong. */
  field(name: string): string | undefined {
    for (const f of this.fields) {
      const [path = "", line] = f.name.split(/\[(\d+)\]$/);
      if (path === name || path.endsWith(`.${name}`))
        return line === undefined ? f.message : `line ${Number(line) + 1}: ${f.message}`;
    }
    return undefined;
  }

  /** For how long to wait before a repeat, in ms, where one can help; the pause grows with attempts. */
  pause(attempt: number): number | undefined {
    const after = this.retryAfterSeconds;
    switch (retries.get(this.reason)) {
      case undefined:
        return undefined;
      case "after":
        return after === undefined ? undefined : after * 1000;
      case "backoff":
        return Math.max(backoff(attempt), (after ?? 0) * 1000);
    }
  }
}

/** A call that nobody answered. It may have been heard all the same. */
export class NoAnswerError extends Error {
  override readonly name = "NoAnswerError";

  constructor(
    /** OFFLINE where no connection came about or it broke, TIMEOUT where the time limit was reached. */
    readonly reason: "OFFLINE" | "TIMEOUT",
    /** Whether the call changes something, so that it may have been done. */
    readonly maybeDone: boolean,
    options?: ErrorOptions,
  ) {
    super(
      `Devpilot ${reason === "TIMEOUT" ? "did not answer in time" : "does not answer"}.` +
        (maybeDone ? " Whether it was done is not known: look before you do it again." : ""),
      options,
    );
  }

  /** For how long to wait before a repeat, in ms. What used up its time is not repeated. */
  pause(attempt: number): number | undefined {
    return this.reason === "OFFLINE" ? backoff(attempt) : undefined;
  }
}

/** The pause before an attempt is repeated: it doubles, and differs between callers. */
export function backoff(attempt: number): number {
  return Math.min(250 * 2 ** attempt, 15_000) * (0.75 + Math.random() / 2);
}

const byStatus: Readonly<Record<number, Reason>> = {
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  405: "METHOD_NOT_ALLOWED",
  408: "TIMEOUT",
  412: "ETAG_MISMATCH",
  413: "PAYLOAD_TOO_LARGE",
  415: "UNSUPPORTED_MEDIA_TYPE",
  429: "RATE_LIMITED",
  500: "INTERNAL",
  501: "UNIMPLEMENTED",
};

/** What an answer without a problem document means: something between here and Devpilot gave it. */
function reasonOf(status: number): Reason {
  if (status >= 500) return byStatus[status] ?? "SERVICE_UNAVAILABLE";
  return byStatus[status] ?? (status >= 400 ? "INVALID_ARGUMENT" : "NOT_FOUND");
}

/** What a refused call was answered with; a server in between may have answered something else. */
export async function refusal(response: Response): Promise<DevpilotError> {
  const text = await response.text();
  let said: Partial<Problem> = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null && "reason" in parsed) said = parsed as Partial<Problem>;
  } catch {
    // no problem document; the status says what there is to say
  }
  const after = Number(response.headers.get("retry-after") ?? NaN); // a date instead is not obeyed
  return new DevpilotError({
    type: "about:blank",
    title: response.statusText,
    detail: `Devpilot, or something before it, answered with status ${response.status}.`,
    reason: reasonOf(response.status),
    fields: [],
    requestId: response.headers.get("x-request-id") ?? "",
    ...(Number.isFinite(after) && { retryAfterSeconds: after }),
    ...said,
    status: response.status,
  });
}
