import { connect, DevpilotError, NoAnswerError, type Reason, type Schemas } from "@devpilot/client";
import { learn } from "../lib/clock";
import { sessionEnded, sessionLives } from "../lib/signed-out";

export { requestId } from "@devpilot/client";
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
export type DoctorCheck = Schemas["DoctorCheck"];
export type DoctorReport = Schemas["DoctorReport"];
export type Explanation = Schemas["Explanation"];
export type ExplanationStep = Schemas["ExplanationStep"];
export type HookRecord = Schemas["HookRecord"];
export type Info = Schemas["Info"];
export type Integration = Schemas["Integration"];
export type LoginRequest = Schemas["LoginRequest"];
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

/** What a page can tell of a call that came to nothing. The message is a sentence for people. */
export type ApiError = Pick<
  DevpilotError,
  "message" | "status" | "fields" | "field" | "retryAfterSeconds" | "requestId"
> & { reason: Reason | NoAnswerError["reason"] };

/** Where nobody answered, the status is 0, and nothing more is known than the message says. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof DevpilotError) return error.reason === "UNAUTHENTICATED" ? signedOut(error) : error;
  return {
    message: error instanceof Error ? error.message : String(error),
    reason: error instanceof NoAnswerError ? error.reason : "INTERNAL",
    status: 0,
    fields: [],
    field: () => undefined,
    retryAfterSeconds: undefined,
    requestId: "",
  };
}

/** What the API says of API keys is for programs. */
const signedOut = (error: DevpilotError): ApiError => ({
  message: "You are not signed in.",
  reason: error.reason,
  status: error.status,
  fields: error.fields,
  field: (name) => error.field(name),
  retryAfterSeconds: error.retryAfterSeconds,
  requestId: error.requestId,
});

/** Every request of the console is sent here, and repeated here: the queries repeat nothing. */
export const api = connect({
  baseUrl: location.origin,
  credentials: "same-origin",
  // Somebody is waiting: what does not come soon is said, with a button to try again.
  attempts: 3,
  longestPause: 2000,
  timeLimit: { read: 20_000, change: 60_000 },
  // Devpilot has asked Bitbucket again already, and each question counts against its limit.
  repeat: (why) => why.reason !== "BITBUCKET_UNAVAILABLE",
  heard: ({ request, response, sent }) => {
    learn(Date.parse(response.headers.get("Date") ?? ""), 1000, sent, Date.now());
    if (response.status === 401) sessionEnded();
    else if (response.ok && !request.url.endsWith("/v1/info")) sessionLives(); // anybody may ask for that
  },
});

/** The body of an answer. */
export function body<T>(result: { data?: T }): T {
  if (result.data === undefined) throw new Error("Devpilot answered with nothing.");
  return result.data;
}
