import createClient, { type Client, type Middleware } from "openapi-fetch";
import { repeatable } from "./facts.js";
import { DevpilotError, NoAnswerError, refusal } from "./problem.js";
import type { paths } from "./schema.js";

export interface Options {
  /** Where Devpilot is, such as https://devpilot.example.com. */
  baseUrl: string;
  /** An API key; absent in a browser that is signed in. */
  key?: string | undefined;
  /** Whether a browser sends its cookies; its own default when absent. */
  credentials?: RequestCredentials;
  /** How often a call is tried in all, 4 times when absent. */
  attempts?: number;
  /** No pause before a repeat is longer than so many ms, 30,000 when absent: the call fails instead. */
  longestPause?: number;
  /** Asked before a repeat that could help; false has the call fail instead. */
  repeat?: (why: DevpilotError | NoAnswerError) => boolean;
  /**
   * How many ms a call may take in all, repeats and pauses among them, 120,000 each when absent. A stream must begin
   * within that time, and may then last.
   */
  timeLimit?: { read?: number; change?: number };
  /** Told of every answer, also of those that a repeat follows. Bodies are the client's to read. */
  heard?: (answer: Answer) => void;
  fetch?: (request: Request) => Promise<Response>;
}

export interface Answer {
  request: Request;
  response: Response;
  /** When the request was sent, as Date.now() has it. */
  sent: number;
}

/** GET, POST, PATCH and DELETE of every path; a refusal is thrown as a DevpilotError, silence as a NoAnswerError. */
export type Devpilot = Client<paths> & {
  /** Sends a request that reads, with credentials and repeats; for what has no type, such as a stream. */
  open(path: string, init: { headers?: Record<string, string>; signal?: AbortSignal }): Promise<Response>;
};

/** What is known of a call beside its request. */
interface Call {
  /** Whether a repeat does no harm. */
  harmless: boolean;
  /** Whether the caller reads the body as it comes. */
  stream: boolean;
}

/** Makes a client. It sends nothing yet. */
export function connect(o: Options): Devpilot {
  const baseUrl = o.baseUrl.replace(/\/+$/, "");
  const calls = new WeakMap<Request, Call>();
  const init = o.credentials === undefined ? {} : { credentials: o.credentials };
  const client = createClient<paths>({
    ...init,
    baseUrl,
    fetch: (r) => repeating(r, calls.get(r) ?? { harmless: false, stream: false }, o),
  });
  client.use({
    async onRequest({ request, schemaPath, options }) {
      const ready = await prepared(request, schemaPath, o);
      calls.set(ready, {
        harmless: reads(request) || (request.method === "POST" && repeatable.has(schemaPath)),
        stream: options.parseAs === "stream",
      });
      return ready;
    },
  } satisfies Middleware);
  const open: Devpilot["open"] = (path, more) => {
    const request = new Request(baseUrl + path, { ...init, ...more });
    if (o.key !== undefined) request.headers.set("Authorization", `Bearer ${o.key}`);
    return repeating(request, { harmless: true, stream: true }, o);
  };
  return Object.assign(client, { open });
}

/** What a call answered with; refusals are thrown before. */
export async function take<T>(call: Promise<{ data?: T }>): Promise<T> {
  return (await call).data as T;
}

/** All pages of a list, one after the other. */
export async function* pages<P extends { nextPageToken: string }>(
  page: (query: { pageToken?: string }) => Promise<P>,
): AsyncGenerator<P> {
  let got = await page({});
  yield got;
  while (got.nextPageToken !== "") {
    got = await page({ pageToken: got.nextPageToken });
    yield got;
  }
}

/** Makes a repeat of a POST harmless: the same one has the same id. Browsers have randomUUID over https only. */
export function requestId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

const reads = (request: Request) => request.method === "GET";

/** The request with the key and, where a repeat is to be harmless, a requestId. */
async function prepared(request: Request, path: string, o: Options): Promise<Request> {
  const headers = new Headers(request.headers);
  if (o.key !== undefined) headers.set("Authorization", `Bearer ${o.key}`);
  if (request.method !== "POST" || !repeatable.has(path)) return new Request(request, { headers });
  const text = await request.clone().text();
  const body = (text === "" ? {} : JSON.parse(text)) as Record<string, unknown>;
  headers.set("Content-Type", "application/json");
  return new Request(request, { headers, body: JSON.stringify({ requestId: requestId(), ...body }) });
}

/** Sends a request, again where that is harmless and can help, and throws what it was refused with. */
async function repeating(request: Request, call: Call, o: Options): Promise<Response> {
  const limit = o.timeLimit?.[reads(request) ? "read" : "change"] ?? 120_000;
  const end = Date.now() + limit;
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), limit);
  const signal = AbortSignal.any([request.signal, late.signal]);
  try {
    for (let attempt = 0; ; attempt++) {
      let problem;
      try {
        return await once(new Request(request.clone(), { signal }), call, o);
      } catch (e) {
        request.signal.throwIfAborted();
        problem =
          e instanceof DevpilotError
            ? e
            : new NoAnswerError(late.signal.aborted ? "TIMEOUT" : "OFFLINE", !reads(request), { cause: e });
      }
      const last = !call.harmless || attempt + 1 >= (o.attempts ?? 4) || o.repeat?.(problem) === false;
      const pause = last ? undefined : problem.pause(attempt);
      if (pause === undefined || pause > (o.longestPause ?? 30_000) || Date.now() + pause >= end) throw problem;
      await wait(pause, request.signal);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** One try. What is no stream is read to its end here, so that an answer that breaks off is none. */
async function once(request: Request, call: Call, o: Options): Promise<Response> {
  const sent = Date.now();
  const response = await (o.fetch ?? globalThis.fetch)(request);
  o.heard?.({ request, response, sent });
  if (!response.ok && response.status !== 304) throw await refusal(response);
  return call.stream || response.body === null ? response : new Response(await response.arrayBuffer(), response);
}

/** Waits, or throws once the signal says so. */
export async function wait(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((done, fail) => {
    const stop = () => {
      clearTimeout(timer);
      fail(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      done();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
