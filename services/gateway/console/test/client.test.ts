// How the console's one client stands between its pages and Devpilot, whose answers each test scripts.
import { readFileSync } from "node:fs";
import { beforeAll, beforeEach, expect, test, vi } from "vitest";

type Client = typeof import("../src/api/client");
let client: Client;
let asked: { url: string; body: { requestId?: string } | undefined }[] = [];
let answers: (Response | Error)[] = [];

const json = (status: number, body: object) => new Response(JSON.stringify(body), { status });
const refusal = (status: number, reason: string) =>
  json(status, { reason, detail: "d", fields: [{ name: "app.branch", message: "m" }], requestId: "r" });
const silence = () => new TypeError("fetch failed");

beforeAll(async () => {
  vi.stubGlobal("location", { origin: "https://devpilot.test", pathname: "/w", search: "", hash: "", assign: vi.fn() });
  vi.stubGlobal("fetch", async (request: Request) => {
    const text = await request.clone().text();
    asked.push({ url: request.url, body: text === "" ? undefined : (JSON.parse(text) as { requestId?: string }) });
    const answer = answers.shift();
    if (answer === undefined) throw new Error("not expected");
    if (answer instanceof Error) throw answer;
    return answer;
  });
  client = await import("../src/api/client");
});

beforeEach(() => {
  asked = [];
  answers = [];
});

const me = () => client.api.GET("/v1/me");
const failed = (call: Promise<unknown>) =>
  call.then(
    () => expect.fail("it was answered"),
    (e: unknown) => client.asApiError(e),
  );

test("a question that nobody answers is asked three times, and then told as what it is", async () => {
  answers = [silence(), silence(), silence()];
  expect(await failed(me())).toMatchObject({ reason: "OFFLINE", status: 0, message: "Devpilot does not answer." });
  expect(asked.length).toBe(3);
});

test("a refusal is told with its reason and the field that it is about", async () => {
  answers = [refusal(400, "INVALID_ARGUMENT")];
  const e = await failed(me());
  expect(e).toMatchObject({ reason: "INVALID_ARGUMENT", status: 400, message: "d", requestId: "r" });
  expect(e.field("branch")).toBe("m");
  expect(asked.length).toBe(1);
});

test("what Bitbucket does not answer is told at once", async () => {
  answers = [refusal(503, "BITBUCKET_UNAVAILABLE")];
  expect((await failed(me())).reason).toBe("BITBUCKET_UNAVAILABLE");
  expect(asked.length).toBe(1);
});

test("who must wait for long is told for how long", async () => {
  answers = [json(429, { reason: "RATE_LIMITED", detail: "d", fields: [], retryAfterSeconds: 40 })];
  expect((await failed(me())).retryAfterSeconds).toBe(40);
  expect(asked.length).toBe(1);
});

test("what a person does is repeated where it has an id, and where not it is said that nobody knows", async () => {
  answers = [silence(), json(200, {})];
  const app = { path: { workspace: "default", app: "web" } };
  await client.api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", { params: app, body: {} });
  expect(asked.length).toBe(2);
  expect(asked[0]?.body?.requestId).toMatch(/^[0-9a-f]{32}$/);
  expect(asked[1]?.body).toEqual(asked[0]?.body);

  answers = [silence()];
  const e = await failed(client.api.PATCH("/v1/workspaces/{workspace}/apps/{app}", { params: app, body: {} }));
  expect(e.message).toMatch(/Whether it was done is not known/);
  expect(asked.length).toBe(3);
});

test("what is no answer of the API is told too", () => {
  expect(client.asApiError(new Error("broken"))).toMatchObject({ reason: "INTERNAL", status: 0, message: "broken" });
});

test("a session that has ended leads to the page for signing in", async () => {
  answers = [refusal(401, "UNAUTHENTICATED")];
  await failed(me());
  expect(location.assign).toHaveBeenCalledWith("/sign-in?next=%2Fw");
});

test("the console has the libraries that the client names", () => {
  const read = (path: string) =>
    JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8")) as Record<string, Record<string, string>>;
  const [own, its] = [read("../package.json"), read("../../client/package.json")];
  expect(own["dependencies"]).toMatchObject(its["dependencies"] ?? {});
  expect(own["devDependencies"]).toMatchObject(its["devDependencies"] ?? {});
});
