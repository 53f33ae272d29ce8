// Compiled strictly against the types that openapi-typescript makes of the document. What must not
// compile is marked: a mark where everything is well is an error too.
import type { components, paths } from "./out/schema.js";

type Schemas = components["schemas"];
type Problem = Schemas["Problem"];

// A refused call is told by its reason, and a misspelt one is noticed.
export function isGone(p: Problem): boolean {
  // @ts-expect-error misspelt
  if (p.reason === "APP_NOT_FUOND") return false;
  return p.reason === "APP_NOT_FOUND" || p.reason === "DEPLOYMENT_NOT_FOUND";
}

// What is always there needs no question mark.
export function since(app: Schemas["App"], deployment: Schemas["Deployment"], key: Schemas["ApiKey"]): string[] {
  return [app.createTime, deployment.createTime, deployment.actor.label, key.createTime];
}

export function made(answer: Schemas["CreateApiKeyResult"]): string {
  return answer.apiKey.id + answer.secret;
}

// Words for "not set" are no words of the API.
// @ts-expect-error never sent
export const unset: Schemas["DeploymentState"] = "STATE_UNSPECIFIED";

// What only answers have is not sent.
export const sent: Schemas["AppInput"] = { repository: "r", branch: "main" };
// @ts-expect-error Devpilot's to say
export const notSent: Schemas["AppInput"] = { repository: "r", branch: "main", createTime: "now" };

// Events are told apart by their names, and each has its own data.
export function changed(e: Schemas["WorkspaceEvent"]): string {
  switch (e.event) {
    case "change":
      return e.data.kind;
    case "end":
      return e.data.reason;
    case "ready":
    case "reset":
      return e.event;
  }
}

// A line of a log is a record, or says what it is.
export function text(line: Schemas["LogLine"]): string {
  if ("heartbeat" in line) return line.heartbeat.time;
  if ("end" in line) return line.end.state;
  if ("error" in line) return line.error.detail;
  return line.text;
}

// The whole log is no line of it.
type Log = paths["/v1/workspaces/{workspace}/apps/{app}/deployments/{number}/log"]["get"]["responses"][200]["content"];
// @ts-expect-error a text
export const line: number = ({} as Log)["application/x-ndjson"];
