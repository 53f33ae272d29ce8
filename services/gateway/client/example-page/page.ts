// A page of another origin than Devpilot's, without a framework: it lists repositories and branches, makes an app or
// takes the one that is there, deploys, and follows the log. README.md beside the client says how it is served.
import { connect, DevpilotError, followLog, pages, take, type Devpilot, type Schemas } from "@devpilot/client";

const byId = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const entry = byId<HTMLFormElement>("entry");
const choice = byId<HTMLFormElement>("choice");
const field = (form: HTMLFormElement, name: string) => form.elements.namedItem(name) as HTMLInputElement;

let devpilot: Devpilot;
let workspace = "";

/** Runs what somebody asked for; what is refused is said on the page. */
function run(action: () => Promise<void>): void {
  byId("refused").textContent = "";
  action().catch((e: unknown) => {
    byId("refused").textContent = said(e);
  });
}

/** A refusal is told apart by its reason; its message says what to do. */
function said(e: unknown): string {
  if (!(e instanceof DevpilotError))
    return `Devpilot does not answer this page: is ${location.origin} in --allowed-origins?`;
  switch (e.reason) {
    case "UNAUTHENTICATED":
      return `Give an API key, or sign in at Devpilot in this browser first (${e.reason}).`;
    case "PERMISSION_DENIED":
      return `The key may not do this: ${e.message} (${e.reason})`;
    default:
      return `${e.message} (${e.reason})`;
  }
}

function fill(name: string, options: { value: string; text: string }[]): void {
  const select = choice.elements.namedItem(name) as HTMLSelectElement;
  select.replaceChildren(...options.map((o) => new Option(o.text, o.value)));
}

/** Lists what can be deployed. */
async function list(): Promise<void> {
  const key = field(entry, "key").value;
  workspace = field(entry, "workspace").value;
  devpilot = connect({
    baseUrl: field(entry, "url").value,
    ...(key === "" ? {} : { key }),
    // Without a key it is the cookie of a signed-in browser that counts; it is sent only if it is asked for.
    fetch: (request) => fetch(new Request(request, { credentials: key === "" ? "include" : "omit" })),
  });
  const found: Schemas["Repository"][] = [];
  const page = (query: { pageToken?: string }) =>
    take(devpilot.GET("/v1/workspaces/{workspace}/repositories", { params: { path: { workspace }, query } }));
  for await (const part of pages(page)) found.push(...part.repositories);
  fill(
    "repository",
    found.map((r) => ({ value: r.id, text: r.fullName })),
  );
  choice.hidden = false;
  await branches();
}

async function branches(): Promise<void> {
  const repository = field(choice, "repository").value;
  const path = { workspace, repository };
  const answer = await take(
    devpilot.GET("/v1/workspaces/{workspace}/repositories/{repository}/branches", { params: { path } }),
  );
  if (field(choice, "repository").value !== repository) return; // an answer may come later than the next one's
  fill(
    "branch",
    answer.branches.map((b) => ({ value: b.name, text: b.name })),
  );
}

/** Makes the app unless it is there, deploys, and shows the log while it grows. */
async function deploy(): Promise<void> {
  const app = field(choice, "app").value;
  const branch = field(choice, "branch").value;
  const body = { appId: app, app: { repository: field(choice, "repository").value, branch } };
  byId("state").textContent = "";
  byId("log").textContent = "";
  try {
    await devpilot.POST("/v1/workspaces/{workspace}/apps", { params: { path: { workspace } }, body });
  } catch (e) {
    if (!(e instanceof DevpilotError && e.reason === "APP_EXISTS")) throw e; // then it is taken as it is
  }
  const path = { workspace, app };
  const deployment = await take(
    devpilot.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", { params: { path }, body: { branch } }),
  );
  byId("state").textContent = `Deployment ${deployment.number} has begun.`;
  const log = followLog(devpilot, { ...path, number: deployment.number });
  let line = await log.next();
  for (; !line.done; line = await log.next()) byId("log").append(`${line.value.text}\n`);
  byId("state").textContent = `Deployment ${deployment.number} ended: ${line.value.state}.`;
}

entry.addEventListener("submit", (e) => {
  e.preventDefault();
  run(list);
});
choice.addEventListener("submit", (e) => {
  e.preventDefault();
  run(deploy);
});
field(choice, "repository").addEventListener("change", () => run(branches));
