// What the client does by itself, against a Devpilot that each test scripts: no network, no clock.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, DevpilotError, followEvents, followLog, isReason, pages, take } from "../dist/index.js";

const json = (status, body, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });
const problem = (status, reason, more = {}) =>
  json(status, { type: "t", title: "t", status, detail: "d", reason, fields: [], requestId: "r", ...more });

/** A client whose answers are these, in turn; what was asked is kept. */
function scripted(answers, options = {}) {
  const asked = [];
  const fetch = async (request) => {
    const text = await request.clone().text();
    asked.push({
      method: request.method,
      url: request.url,
      headers: request.headers,
      body: text === "" ? undefined : JSON.parse(text),
    });
    const next = answers.shift();
    assert.ok(next !== undefined, `${request.method} ${request.url} was not expected`);
    if (next instanceof Error) throw next;
    return next;
  };
  return { devpilot: connect({ baseUrl: "https://devpilot.test/", key: "the-key", fetch, ...options }), asked };
}

const apps = { params: { path: { workspace: "default" } } };

test("a refusal is an error with its reason", async () => {
  const { devpilot, asked } = scripted([problem(404, "APP_NOT_FOUND")]);
  const call = devpilot.GET("/v1/workspaces/{workspace}/apps/{app}", {
    params: { path: { workspace: "default", app: "web" } },
  });
  await assert.rejects(
    call,
    (e) => e instanceof DevpilotError && e.reason === "APP_NOT_FOUND" && e.status === 404 && e.message === "d",
  );
  assert.equal(asked.length, 1);
  assert.equal(asked[0].url, "https://devpilot.test/v1/workspaces/default/apps/web");
  assert.equal(asked[0].headers.get("authorization"), "Bearer the-key");
});

test("a read is repeated where the table of reasons says that it helps", async () => {
  const { devpilot, asked } = scripted([
    problem(503, "SERVICE_UNAVAILABLE"),
    new TypeError("fetch failed"),
    json(200, { apps: [], nextPageToken: "" }),
  ]);
  assert.deepEqual((await take(devpilot.GET("/v1/workspaces/{workspace}/apps", apps))).apps, []);
  assert.equal(asked.length, 3);
});

test("what stays refused is not repeated, nor what must wait for too long", async () => {
  for (const answer of [
    problem(403, "PERMISSION_DENIED"),
    problem(429, "RATE_LIMITED", { retryAfterSeconds: 3600 }),
    problem(409, "LATER_THAN_THIS_CLIENT"),
  ]) {
    const { devpilot, asked } = scripted([answer]);
    await assert.rejects(devpilot.GET("/v1/workspaces/{workspace}/apps", apps), DevpilotError);
    assert.equal(asked.length, 1);
  }
});

// What stands between a caller and Devpilot answers with pages of its own.
test("an answer without a problem is told by its status", async () => {
  for (const [status, reason, asked] of [
    [302, "NOT_FOUND", 1],
    [400, "INVALID_ARGUMENT", 1],
    [401, "UNAUTHENTICATED", 1],
    [403, "PERMISSION_DENIED", 1],
    [404, "NOT_FOUND", 1],
    [413, "PAYLOAD_TOO_LARGE", 1],
    [415, "UNSUPPORTED_MEDIA_TYPE", 1],
    [429, "RATE_LIMITED", 1],
    [502, "SERVICE_UNAVAILABLE", 2],
    [503, "SERVICE_UNAVAILABLE", 2],
    [521, "SERVICE_UNAVAILABLE", 2],
  ]) {
    const pages = [0, 1].map(() => new Response("<h1>No</h1>", { status }));
    const { devpilot, asked: sent } = scripted(pages, { attempts: 2 });
    await assert.rejects(
      devpilot.GET("/v1/workspaces/{workspace}/apps", apps),
      (e) =>
        e instanceof DevpilotError && e.reason === reason && e.status === status && e.message.includes(`${status}`),
    );
    assert.equal(sent.length, asked, `${status}`);
  }
});

test("a page that says when to come again is obeyed, and JSON that is no problem is none", async () => {
  const { devpilot, asked } = scripted([
    new Response("busy", { status: 429, headers: { "Retry-After": "0" } }),
    json(429, { message: "too fast", status: 200 }),
  ]);
  await assert.rejects(
    devpilot.GET("/v1/workspaces/{workspace}/apps", apps),
    (e) => e.reason === "RATE_LIMITED" && e.status === 429,
  );
  assert.equal(asked.length, 2);
});

test("a create has a requestId, the same in its repeats, and keeps one that it was given", async () => {
  const { devpilot, asked } = scripted([problem(503, "STORAGE_UNAVAILABLE"), json(200, {}), json(200, {})]);
  const body = { appId: "web", app: { repository: "r", branch: "main" } };
  await devpilot.POST("/v1/workspaces/{workspace}/apps", { ...apps, body });
  assert.match(asked[0].body.requestId, /^[0-9a-f-]{36}$/);
  assert.deepEqual(asked[1].body, asked[0].body);
  assert.deepEqual({ ...asked[0].body, requestId: undefined }, { ...body, requestId: undefined });
  await devpilot.POST("/v1/workspaces/{workspace}/apps", { ...apps, body: { ...body, requestId: "mine" } });
  assert.equal(asked[2].body.requestId, "mine");
});

test("what a requestId does not protect is sent once, as it is", async () => {
  const { devpilot, asked } = scripted([problem(503, "SERVICE_UNAVAILABLE"), new TypeError("fetch failed")]);
  await assert.rejects(devpilot.POST("/v1/session", { body: { token: "t" } }), DevpilotError);
  assert.deepEqual(asked[0].body, { token: "t" });
  await assert.rejects(
    devpilot.PATCH("/v1/workspaces/{workspace}/apps/{app}", {
      params: { path: { workspace: "default", app: "web" } },
      body: { branch: "main" },
    }),
    TypeError,
  );
  assert.equal(asked.length, 2);
});

test("pages come one after the other", async () => {
  const { devpilot, asked } = scripted([
    json(200, { apps: [1], nextPageToken: "n" }),
    json(200, { apps: [2], nextPageToken: "" }),
  ]);
  const all = [];
  for await (const page of pages((query) =>
    take(devpilot.GET("/v1/workspaces/{workspace}/apps", { params: { path: { workspace: "default" }, query } })),
  ))
    all.push(...page.apps);
  assert.deepEqual(all, [1, 2]);
  assert.deepEqual(
    asked.map((a) => new URL(a.url).searchParams.get("pageToken")),
    [null, "n"],
  );
});

const stream = (text) => new Response(text, { status: 200 });
const record = (line) =>
  `${JSON.stringify({ line, stream: "STDOUT", text: `line ${line}`, time: "2026-01-01T00:00:00Z" })}\n`;

test("a log goes on after its last whole line", async () => {
  const { devpilot, asked } = scripted([
    stream(record(1) + record(2) + record(3).slice(0, 20)), // cut
    problem(503, "SERVICE_UNAVAILABLE"),
    stream(record(2) + record(3) + `{"heartbeat":{"time":"2026-01-01T00:00:00Z"}}\n{"end":{"state":"COMPLETED"}}\n`),
  ]);
  const got = [];
  const log = followLog(devpilot, { workspace: "default", app: "web", number: 7 });
  let next;
  while (!(next = await log.next()).done) got.push(next.value.text);
  assert.deepEqual(got, ["line 1", "line 2", "line 3"]);
  assert.deepEqual(next.value, { state: "COMPLETED" });
  assert.deepEqual(
    asked.map((a) => new URL(a.url).searchParams.get("after")),
    ["0", "2", "2"],
  );
});

test("a log that is refused for good ends with the refusal", async () => {
  const { devpilot } = scripted([problem(404, "DEPLOYMENT_NOT_FOUND")]);
  await assert.rejects(
    followLog(devpilot, { workspace: "default", app: "web", number: 7 }).next(),
    (e) => e.reason === "DEPLOYMENT_NOT_FOUND",
  );
});

test("events go on after the last one, and end with the session", async () => {
  const { devpilot, asked } = scripted([
    stream(
      `: beat\n\nid: 4\nevent: ready\ndata: {}\n\nid: 5\nevent: change\ndata: {"kind":"app","id":"web"}\n\nid: 6\nevent: change\nda`,
    ),
    stream(
      `id: 6\nevent: change\ndata: {"kind":"app","id":"api"}\n\nevent: end\ndata: {"reason":"UNAUTHENTICATED"}\n\n`,
    ),
  ]);
  const got = [];
  for await (const e of followEvents(devpilot, { workspace: "default" }))
    got.push(`${e.event} ${e.data.id ?? e.data.reason ?? ""}`);
  assert.deepEqual(got, ["ready ", "change web", "change api", "end UNAUTHENTICATED"]);
  assert.deepEqual(
    asked.map((a) => a.headers.get("last-event-id")),
    [null, "5"],
  );
});

test("events of some kinds and one app bring along what was asked for, also over a broken connection", async () => {
  const event = (id) =>
    `id: ${id}\nevent: change\ndata: ${JSON.stringify({ kind: "deployment", id: "web/7", object: { number: 7, state: "FAILED" }, etag: '"r1.d"', app: { id: "web" } })}\n\n`;
  const { devpilot, asked } = scripted([stream(event(5)), stream(`${event(6)}event: end\ndata: {}\n\n`)]);
  const got = [];
  const of = { workspace: "default", kinds: ["deployment", "app"], app: "web", include: ["object", "app"] };
  for await (const e of followEvents(devpilot, of))
    if (e.event === "change") got.push(`${e.id} ${e.data.object.state} ${e.data.etag} ${e.data.app.id}`);
  assert.deepEqual(got, [`5 FAILED "r1.d" web`, `6 FAILED "r1.d" web`]);
  const url =
    "https://devpilot.test/v1/workspaces/default/events?kind=deployment&kind=app&app=web&include=object&include=app";
  assert.deepEqual(
    asked.map((a) => a.url),
    [url, url],
  );
});

test("who stops a stream is not waited for", async () => {
  const stop = new AbortController();
  const { devpilot } = scripted([problem(503, "SERVICE_UNAVAILABLE")], { attempts: 100 });
  const log = followLog(devpilot, { workspace: "default", app: "web", number: 7, signal: stop.signal }).next();
  stop.abort(new Error("enough"));
  await assert.rejects(log, /enough/);
});

test("known reasons are told from others", () => {
  assert.ok(isReason("APP_NOT_FOUND"));
  assert.ok(!isReason("APP_NOT_FUOND") && !isReason("toString"));
});
