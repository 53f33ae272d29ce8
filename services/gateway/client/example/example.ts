// An example of @devpilot/client that its test compiles and runs: list, create, deploy, follow the log,
// and a call that is refused. It says what came of it as JSON.
import { connect, DevpilotError, followEvents, followLog, pages, take } from "@devpilot/client";

declare const process: { argv: string[] };
const [, , baseUrl = "", key = ""] = process.argv;
const devpilot = connect({ baseUrl, key });
const workspace = { workspace: "default" };

let repository: { id: string; fullName: string } | undefined;
const list = (query: { pageToken?: string }) =>
  take(
    devpilot.GET("/v1/workspaces/{workspace}/repositories", {
      params: { path: workspace, query: { pageSize: 2, ...query } },
    }),
  );
for await (const page of pages(list)) repository ??= page.repositories.find((r) => r.fullName === "acme/web");
if (repository === undefined) throw new Error("acme/web is not among the repositories");

// What changes meanwhile.
const stop = new AbortController();
const changed = new Set<string>();
let live = (): void => undefined;
const isLive = new Promise<void>((done) => (live = done));
const watching = (async () => {
  for await (const e of followEvents(devpilot, { ...workspace, signal: stop.signal })) {
    if (e.event === "ready") live();
    if (e.event === "change") changed.add(e.data.kind);
  }
})().catch(() => undefined);
await isLive;

const body = { appId: "typed", app: { repository: repository.id, branch: "main" } };
const app = await take(devpilot.POST("/v1/workspaces/{workspace}/apps", { params: { path: workspace }, body }));
const path = { ...workspace, app: app.id };
const deployment = await take(
  devpilot.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", { params: { path }, body: {} }),
);

const lines: string[] = [];
const log = followLog(devpilot, { ...path, number: deployment.number });
let next = await log.next();
for (; !next.done; next = await log.next()) lines.push(next.value.text);

let refused = "";
try {
  await devpilot.POST("/v1/workspaces/{workspace}/apps", { params: { path: workspace }, body });
} catch (e) {
  if (!(e instanceof DevpilotError)) throw e;
  // @ts-expect-error a misspelt reason does not compile
  if (e.reason === "APP_EXIST") throw e;
  if (e.reason === "APP_EXISTS") refused = e.reason;
}
const now = await take(devpilot.GET("/v1/workspaces/{workspace}/apps/{app}", { params: { path } }));
stop.abort();
await watching;
console.log(
  JSON.stringify({
    repository: repository.fullName,
    lines,
    end: next.value.state,
    live: now.live?.number,
    refused,
    changed: [...changed],
  }),
);
