import createClient, { type Client, type Middleware } from "openapi-fetch";
import { repeatable } from "./facts.js";
import { backoff, DevpilotError, refusal } from "./problem.js";
import type { paths } from "./schema.js";

export interface Options {
  /** Where Devpilot is, such as https://devpilot.example.com. */
  baseUrl: string;
  /** An API key; absent in a browser that is signed in. */
  key?: string | undefined;
  /** How often a call is tried in all, 4 times when absent. */
  attempts?: number;
  /** No pause before a repeat is longer than so many ms, 30,000 when absent: the call fails instead. */
  longestPause?: number;
  fetch?: (request: Request) => Promise<Response>;
}

/** GET, POST, PATCH and DELETE of every path; a refusal is thrown as a DevpilotError. */
export type Devpilot = Client<paths> & {
  /** Sends a request that reads, with credentials and repeats; for what has no type, such as a stream. */
  open(path: string, init: { headers?: Record<string, string>; signal?: AbortSignal }): Promise<Response>;
};

/** Makes a client. It sends nothing yet. */
export function connect(o: Options): Devpilot {
  const baseUrl = o.baseUrl.replace(/\/+$/, "");
  const send = o.fetch ?? ((r: Request) => globalThis.fetch(r));
  const harmless = new WeakSet<Request>();
  const client = createClient<paths>({ baseUrl, fetch: (r) => repeating(r, harmless.has(r), send, o) });
  client.use({
    async onRequest({ request, schemaPath }) {
      const ready = await prepared(request, schemaPath, o);
      if (isHarmless(request.method, schemaPath)) harmless.add(ready);
      return ready;
    },
  } satisfies Middleware);
  const open: Devpilot["open"] = (path, init) => {
    const request = new Request(baseUrl + path, init);
    if (o.key !== undefined) request.headers.set("Authorization", `Bearer ${o.key}`);
    return repeating(request, true, send, o);
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

function isHarmless(method: string, path: string): boolean {
  return method === "GET" || (method === "POST" && repeatable.has(path));
}

/** The request with the key and, where a repeat is to be harmless, a requestId. */
async function prepared(request: Request, path: string, o: Options): Promise<Request> {
  const headers = new Headers(request.headers);
  if (o.key !== undefined) headers.set("Authorization", `Bearer ${o.key}`);
  if (request.method !== "POST" || !repeatable.has(path)) return new Request(request, { headers });
  const text = await request.clone().text();
  const body = (text === "" ? {} : JSON.parse(text)) as Record<string, unknown>;
  headers.set("Content-Type", "application/json");
  return new Request(request, { headers, body: JSON.stringify({ requestId: crypto.randomUUID(), ...body }) });
}

/** Sends a request, again where that is harmless and can help, and throws what it was refused with. */
async function repeating(
  request: Request,
  harmless: boolean,
  send: (r: Request) => Promise<Response>,
  o: Options,
): Promise<Response> {
  const attempts = harmless ? (o.attempts ?? 4) : 1;
  for (let attempt = 0; ; attempt++) {
    const last = attempt + 1 >= attempts;
    let pause: number | undefined;
    let problem: unknown;
    try {
      const response = await send(request.clone());
      if (response.ok || response.status === 304) return response;
      const refused = await refusal(response);
      problem = refused;
      pause = refused.pause(attempt);
    } catch (e) {
      if (request.signal.aborted || e instanceof DevpilotError) throw e;
      problem = e; // Devpilot did not answer
      pause = backoff(attempt);
    }
    if (last || pause === undefined || pause > (o.longestPause ?? 30_000)) throw problem;
    await wait(pause, request.signal);
  }
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
