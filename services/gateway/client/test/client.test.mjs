// What the client does by itself, against a Devpilot that each test scripts: no network, no clock.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as later } from "node:timers/promises";
import {
  connect,
  DevpilotError,
  followEvents,
  followLog,
  isReason,
  NoAnswerError,
  pages,
  requestId,
  take,
} from "../dist/index.js";

const json = (status, body, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });
const problem = (status, reason, more = {}) =>
  json(status, { type: "t", title: "t", status, detail: "d", reason, fields: [], requestId: "r", ...more });

const stream = (text) => new Response(text, { status: 200 });

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
    return typeof next === "function" ? next(request) : next;
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
  assert.match(asked[0].body.requestId, /^[0-9a-f]{32}$/);
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
    NoAnswerError,
  );
  assert.equal(asked.length, 2);
});

test("silence is an error that says whether something may have been done", async () => {
  const { devpilot } = scripted([new TypeError("fetch failed"), new TypeError("fetch failed")], { attempts: 1 });
  await assert.rejects(
    devpilot.GET("/v1/workspaces/{workspace}/apps", apps),
    (e) =>
      e instanceof NoAnswerError &&
      e.reason === "OFFLINE" &&
      !e.maybeDone &&
      e.message === "Devpilot does not answer." &&
      e.cause instanceof TypeError,
  );
  await assert.rejects(
    devpilot.DELETE("/v1/session", {}),
    (e) => e instanceof NoAnswerError && e.maybeDone && e.message.includes("Whether it was done is not known"),
  );
});

/** An answer that never comes, or whose body never ends. */
const hangs = (request) =>
  new Promise((_, fail) => {
    const never = setTimeout(() => fail(new Error("it was never given up")), 30_000);
    request.signal.addEventListener("abort", () => {
      clearTimeout(never);
      fail(request.signal.reason);
    });
  });
const hangsWithin = (request) => {
  const body = new ReadableStream({
    start(c) {
      c.enqueue(new TextEncoder().encode(`{"apps":`));
      void hangs(request).catch((e) => c.error(e));
    },
  });
  return new Response(body, { status: 200 });
};

test("what does not answer in time is given up, in the middle of an answer too, and not repeated", async () => {
  for (const answer of [hangs, hangsWithin]) {
    const { devpilot, asked } = scripted([answer], { timeLimit: { read: 20 } });
    await assert.rejects(
      devpilot.GET("/v1/workspaces/{workspace}/apps", apps),
      (e) => e instanceof NoAnswerError && e.reason === "TIMEOUT" && e.message === "Devpilot did not answer in time.",
    );
    assert.equal(asked.length, 1);
  }
  const { devpilot } = scripted([hangs], { timeLimit: { read: 3_600_000, change: 20 } });
  await assert.rejects(
    devpilot.DELETE("/v1/session", {}),
    (e) => e.reason === "TIMEOUT" && e.maybeDone && e.message.includes("Whether it was done is not known"),
  );
});

test("the time limit is for a call with its repeats: what could only come after it is not waited for", async () => {
  const { devpilot, asked } = scripted([problem(429, "RATE_LIMITED", { retryAfterSeconds: 20 })], {
    timeLimit: { read: 10_000 },
  });
  await assert.rejects(
    devpilot.GET("/v1/workspaces/{workspace}/apps", apps),
    (e) => e instanceof DevpilotError && e.retryAfterSeconds === 20,
  );
  assert.equal(asked.length, 1);
});

test("an answer that breaks off is asked for again", async () => {
  const { devpilot, asked } = scripted([
    () =>
      new Response(
        new ReadableStream({
          start(c) {
            c.enqueue(new TextEncoder().encode(`{"apps":`));
            c.error(new TypeError("terminated"));
          },
        }),
        { status: 200 },
      ),
    json(200, { apps: [], nextPageToken: "" }),
  ]);
  assert.deepEqual((await take(devpilot.GET("/v1/workspaces/{workspace}/apps", apps))).apps, []);
  assert.equal(asked.length, 2);
});

test("a stream that has begun may last longer than the time limit", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let line;
  const slow = (request) =>
    new Response(
      new ReadableStream({
        start(c) {
          request.signal.addEventListener("abort", () => c.error(request.signal.reason));
          line = (text) => c.enqueue(new TextEncoder().encode(text));
        },
      }),
      { status: 200 },
    );
  const { devpilot } = scripted([slow, slow], { timeLimit: { read: 1000 } });
  const { data } = await devpilot.GET("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}/log", {
    params: { path: { workspace: "default", app: "web", number: 7 } },
    parseAs: "stream",
  });
  t.mock.timers.tick(2000);
  line("late");
  assert.equal(new TextDecoder().decode((await data.getReader().read()).value), "late");
  const opened = await devpilot.open("/v1/x", {});
  t.mock.timers.tick(2000);
  line("late too");
  assert.equal(new TextDecoder().decode((await opened.body.getReader().read()).value), "late too");
});

test("who stops a call hears of that, not of silence", async () => {
  const stop = new AbortController();
  const { devpilot, asked } = scripted([hangs], { attempts: 1 });
  const call = devpilot.GET("/v1/workspaces/{workspace}/apps", { ...apps, signal: stop.signal });
  while (asked.length === 0) await later(1);
  stop.abort(new Error("enough"));
  await assert.rejects(call, /enough/);
  assert.equal(asked.length, 1);
});

test("every answer is told of, with when it was asked for, also those that are repeated", async () => {
  const heard = [];
  const before = Date.now();
  const { devpilot } = scripted(
    [
      problem(503, "SERVICE_UNAVAILABLE"),
      json(200, { apps: [], nextPageToken: "" }, { Date: "Thu, 01 Jan 2026 00:00:00 GMT" }),
      stream(""),
    ],
    {
      heard: ({ request, response, sent }) => {
        assert.ok(sent >= before && sent <= Date.now());
        heard.push([new URL(request.url).pathname, response.status, response.headers.get("date")]);
      },
    },
  );
  await devpilot.GET("/v1/workspaces/{workspace}/apps", apps);
  await devpilot.open("/v1/stream", {});
  const list = "/v1/workspaces/default/apps";
  assert.deepEqual(heard, [
    [list, 503, null],
    [list, 200, "Thu, 01 Jan 2026 00:00:00 GMT"],
    ["/v1/stream", 200, null],
  ]);
});

test("the caller may keep a repeat from happening", async () => {
  const why = [];
  const { devpilot, asked } = scripted([problem(503, "BITBUCKET_UNAVAILABLE")], {
    repeat: (e) => {
      why.push(e.reason);
      return false;
    },
  });
  await assert.rejects(devpilot.GET("/v1/workspaces/{workspace}/apps", apps), DevpilotError);
  assert.equal(asked.length, 1);
  assert.deepEqual(why, ["BITBUCKET_UNAVAILABLE"]);
});

test("credentials go with calls and streams", async () => {
  const sent = [];
  const note = (request) => {
    sent.push(request.credentials);
    return json(200, {});
  };
  const { devpilot } = scripted([note, note], { key: undefined, credentials: "omit" });
  await devpilot.GET("/v1/me", {});
  await devpilot.open("/v1/me", {});
  assert.deepEqual(sent, ["omit", "omit"]);
});

test("a refused field is found wherever it stands, and a line of a list by its number", () => {
  const refused = new DevpilotError({
    fields: [
      { name: "app.branch", message: "there is no such branch" },
      { name: "app.sharedPaths[2]", message: "it leads outside" },
    ],
  });
  assert.equal(refused.field("branch"), "there is no such branch");
  assert.equal(refused.field("sharedPaths"), "line 3: it leads outside");
  assert.equal(refused.field("ranch"), undefined);
});

test("request ids differ, and need no secure page", () => {
  assert.match(requestId(), /^[0-9a-f]{32}$/);
  assert.notEqual(requestId(), requestId());
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

const record = (line) =>
  `${JSON.stringify({ line, stream: "STDOUT", text: `line ${line}`, time: "2026-01-01T00:00:00Z" })}\n`;

test("a log goes on after its last whole line", async () => {
  const { devpilot, asked } = scripted(
    [
      stream(record(1) + record(2) + record(3).slice(0, 20)), // cut
      problem(503, "SERVICE_UNAVAILABLE"),
      stream(record(2) + record(3) + `{"error":{"reason":"TIMEOUT","detail":"d","status":504}}\n`),
      stream(`{"heartbeat":{"time":"2026-01-01T00:00:00Z"}}\n{"end":{"state":"COMPLETED"}}\n`),
    ],
    { attempts: 1 },
  );
  const got = [];
  const log = followLog(devpilot, {
    workspace: "default",
    app: "web",
    number: 7,
    opened: () => got.push("opened"),
    interrupted: (why) => got.push(why?.reason ?? "interrupted"),
  });
  let next;
  while (!(next = await log.next()).done) got.push(next.value.text);
  assert.deepEqual(got, [
    ...["opened", "line 1", "line 2", "interrupted"],
    ...["SERVICE_UNAVAILABLE", "opened", "line 3", "TIMEOUT", "opened"],
  ]);
  assert.deepEqual(next.value, { state: "COMPLETED" });
  assert.deepEqual(
    asked.map((a) => new URL(a.url).searchParams.get("after")),
    ["0", "2", "2", "3"],
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
