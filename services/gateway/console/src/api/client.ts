import createClient, { type Middleware } from "openapi-fetch";
import { learn } from "../lib/clock";
import { sessionEnded, sessionLives } from "../lib/signed-out";
import type { components, paths } from "./schema";

type Schemas = components["schemas"];
export type ActivityRecord = Schemas["ActivityRecord"];
export type ApiKey = Schemas["ApiKey"];
export type ApiKeyScope = Schemas["ApiKeyScope"];
export type App = Schemas["App"];
export type AppPatch = Schemas["AppPatch"];
export type AppsTrouble = Schemas["AppsTrouble"];
export type Branch = Schemas["Branch"];
export type Commit = Schemas["BranchCommit"];
export type CheckPush = Schemas["CheckPushResult"];
export type DeletionPreview = Schemas["DeletionPreview"];
export type Delivery = Schemas["Delivery"];
export type Deployment = Schemas["Deployment"];
export type DeploymentHook = Schemas["DeploymentHook"];
export type DeploymentSummary = Schemas["DeploymentSummary"];
export type Explanation = Schemas["Explanation"];
export type ExplanationStep = Schemas["ExplanationStep"];
export type HookRecord = Schemas["HookRecord"];
export type Info = Schemas["Info"];
export type Integration = Schemas["Integration"];
export type Me = Schemas["Me"];
export type Member = Schemas["Member"];
export type NeedCount = Schemas["NeedCount"];
export type NotificationTarget = Schemas["NotificationTarget"];
export type ProofReport = Schemas["ProofReport"];
export type Role = "MEMBER" | "ADMIN" | "OWNER";
export type Remedy = Schemas["Remedy"];
export type Repository = Schemas["Repository"];
export type Tag = Schemas["Tag"];
export type Variable = Schemas["Variable"];
export type Webhook = Schemas["Webhook"];
export type Workspace = Schemas["Workspace"];
export type Problem = Schemas["Problem"];

/** A refusal of the API, or its silence, as an error. The message is a sentence for people. */
export class ApiError extends Error {
  readonly reason: string;
  readonly status: number;
  readonly fields: { name: string; message: string }[];
  readonly retryAfterSeconds: number | undefined;
  readonly requestId: string;

  constructor(p: Partial<Omit<Problem, "reason">> & { detail: string; reason: string; status: number }) {
    super(p.detail);
    this.name = "ApiError";
    this.reason = p.reason;
    this.status = p.status;
    this.fields = p.fields ?? [];
    this.retryAfterSeconds = p.retryAfterSeconds;
    this.requestId = p.requestId ?? "";
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
}

export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (tooLate(error)) return silent("TIMEOUT", late); // in the middle of an answer
  return new ApiError({
    status: 0,
    reason: "INTERNAL",
    detail: error instanceof Error ? error.message : String(error),
  });
}

const refusals: Middleware = {
  async onResponse({ response, schemaPath }) {
    if (response.ok || response.status === 304) {
      if (schemaPath !== "/v1/info") sessionLives(); // anybody may ask for that
      return undefined;
    }
    let problem: Partial<Problem> = {};
    try {
      problem = (await response.clone().json()) as Partial<Problem>;
    } catch {
      // A proxy's page instead of a problem: the status has to do.
    }
    if (response.status === 401) sessionEnded();
    throw new ApiError({
      ...problem,
      status: response.status,
      reason: problem.reason ?? (response.status >= 500 ? "SERVICE_UNAVAILABLE" : "INTERNAL"),
      detail: problem.detail ?? problem.title ?? `Devpilot answered with status ${response.status}.`,
    });
  },
  onError({ error, request }) {
    if (error instanceof DOMException && error.name === "AbortError") return error;
    const what = tooLate(error) ? late : "Devpilot does not answer.";
    return silent(tooLate(error) ? "TIMEOUT" : "OFFLINE", reads(request) ? what : `${what} ${unknown}`);
  },
};

const late = "Devpilot did not answer in time.";
const unknown = "Whether it was done is not known: look before you do it again.";

function tooLate(error: unknown): boolean {
  return error instanceof DOMException && error.name === "TimeoutError";
}

function silent(reason: string, detail: string): ApiError {
  return new ApiError({ status: 0, reason, detail });
}

const reads = (request: Request) => request.method === "GET";

/** How long an answer may take: one that hangs is no more waited for. */
const mostWait = { read: 20_000, change: 60_000 };

/** Asks, and learns the time from the answer. */
async function ask(request: Request): Promise<Response> {
  const sent = Date.now();
  const hangs = AbortSignal.timeout(reads(request) ? mostWait.read : mostWait.change);
  // Read at the time of the call, so that tests and tools may put their own in place.
  const response = await globalThis.fetch(new Request(request, { signal: AbortSignal.any([request.signal, hangs]) }));
  learn(Date.parse(response.headers.get("Date") ?? ""), 1000, sent, Date.now());
  return response;
}

export const api = createClient<paths>({
  baseUrl: location.origin,
  credentials: "same-origin",
  fetch: ask,
});
api.use(refusals);

/** The body of an answer that the middleware let through. */
export function body<T>(result: { data?: T; error?: unknown }): T {
  if (result.data === undefined) throw asApiError(result.error ?? new Error("Devpilot answered with nothing."));
  return result.data;
}

/** Makes a repeat of a POST harmless. randomUUID exists in secure contexts only. */
export function requestId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
