// The example page of the TypeScript client, from an origin of its own: with an API key from another site, and
// with the cookie of a signed-in browser from another port of the same host; from an origin that nobody named, nothing.
import { spawn, type ChildProcess } from "node:child_process";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { check, connect, launch, open, signIn } from "./browser";
import { start, type Stack } from "./stack";

const client = resolve(dirname(fileURLToPath(import.meta.url)), "../../client");
let server: ChildProcess;
let port: string;
let stack: Stack;
let browser: Browser;
let owner: BrowserContext;

beforeAll(async () => {
  const program = process.env["DEVPILOT_PROGRAM"];
  if (program === undefined) throw new Error("DEVPILOT_PROGRAM is not set");
  await new Promise<void>((done, fail) => {
    const build = spawn("npm", ["run", "--silent", "build"], { cwd: client, stdio: ["ignore", "ignore", "inherit"] });
    build.once("exit", (code) => (code === 0 ? done() : fail(new Error("the client does not build"))));
  });
  server = spawn(process.execPath, ["example-page/serve.mjs", "0"], {
    cwd: client,
    stdio: ["ignore", "pipe", "inherit"],
  });
  port = await new Promise<string>((done, fail) => {
    server.once("exit", () => fail(new Error("the page is not served")));
    server.stdout?.once("data", (line: Buffer) => done(new URL(line.toString().trim()).port));
  });
  stack = await start(program, "sample", ["--allowed-origins", `http://localhost:${port},http://127.0.0.1:${port}`]);
  browser = await launch();
  owner = await open(browser);
  await signIn(stack, owner);
  await connect(stack, owner);
}, 240_000);

afterAll(async () => {
  await browser?.close();
  await stack?.stop();
  server?.kill();
});

/** Opens the page and connects it, with a key or as whoever is signed in. */
async function enter(context: BrowserContext, host: string, key = ""): Promise<Page> {
  const page = await context.newPage();
  await page.goto(`http://${host}:${port}/`);
  await page.getByLabel("Devpilot").fill(stack.url);
  await page.getByLabel(/API key/).fill(key);
  await page.getByRole("button", { name: "Connect" }).click();
  return page;
}

const makeKey = async (scope: string) =>
  (await stack.api<{ secret: string }>("POST", "/v1/workspaces/default/apiKeys", { label: scope, scope })).secret;

async function deploys(page: Page, app: string): Promise<void> {
  await page.getByLabel("Repository").locator("option", { hasText: "acme/web" }).waitFor({ state: "attached" });
  await page.getByLabel("Repository").selectOption({ label: "acme/web" });
  await page.getByLabel("Branch").locator("option", { hasText: "develop" }).waitFor({ state: "attached" });
  await page.getByLabel("Branch").selectOption("develop");
  await page.getByLabel(/^App/).fill(app);
  await page.getByRole("button", { name: "Deploy" }).click();
  await page.getByText("Release 1 is live.").waitFor();
  await page.getByRole("heading", { name: "Deployment 1 ended: COMPLETED." }).waitFor();
}

test("from another site: with a key it lists, makes an app, deploys, and follows the log", async () => {
  // Signed in or not, no cookie goes from one site to another.
  const without = await enter(owner, "localhost");
  await without.getByText("Give an API key, or sign in").waitFor();
  await without.close();

  const page = await enter(await open(browser), "localhost", await makeKey("ADMIN"));
  await deploys(page, "from-afar");
  await check(page, "example-page");
  // The same app again is taken as it is: the second deployment.
  await page.getByRole("button", { name: "Deploy" }).click();
  await page.getByRole("heading", { name: "Deployment 2 ended: COMPLETED." }).waitFor();
});

test("branches that come late are not taken for those of the repository that was chosen meanwhile", async () => {
  const page = await open(browser).then((context) => context.newPage());
  let late = (): void => undefined;
  const chosen = new Promise<void>((done) => (late = done));
  let asked = 0;
  await page.route("**/branches", async (route) => {
    if (asked++ === 0) await chosen;
    await route.continue();
  });
  await page.goto(`http://localhost:${port}/`);
  await page.getByLabel("Devpilot").fill(stack.url);
  await page.getByLabel(/API key/).fill(await makeKey("READ"));
  await page.getByRole("button", { name: "Connect" }).click();
  await page.getByLabel("Repository").locator("option", { hasText: "acme/web" }).waitFor({ state: "attached" });
  await page.getByLabel("Repository").selectOption({ label: "acme/web" });
  const branches = page.getByLabel("Branch").locator("option");
  await branches.filter({ hasText: "develop" }).waitFor({ state: "attached" });
  const [answer] = await Promise.all([page.waitForResponse("**/branches"), late()]);
  await answer.finished();
  await page.evaluate(() => new Promise((done) => setTimeout(done, 100)));
  expect(await branches.allTextContents()).toContain("develop");
});

test("a refusal is told by its reason", async () => {
  const page = await enter(await open(browser), "localhost", await makeKey("READ"));
  await page.getByLabel("Branch").locator("option").first().waitFor({ state: "attached" });
  await page.getByRole("button", { name: "Deploy" }).click();
  const refused = page.getByRole("alert");
  await refused.getByText("The key may not do this").waitFor();
  expect(await refused.textContent()).toMatch(/\([A-Z_]+\)$/);
});

test("from another port of the same host the cookie of a signed-in browser does", async () => {
  await deploys(await enter(owner, "127.0.0.1"), "from-next-door");
});

test("an origin that nobody named is not answered", async () => {
  const page = await enter(await open(browser), "app.localhost", await makeKey("READ"));
  await page.getByRole("alert").getByText(`is http://app.localhost:${port} in --allowed-origins?`).waitFor();
});
