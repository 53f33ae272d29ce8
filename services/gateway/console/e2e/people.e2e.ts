// Two people in two browsers: one invites the other, who signs in at a small identity provider; what one does
// appears in the other's page, and who is removed is out.
import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Browser, Page } from "playwright-core";
import { check, launch, narrow, open, visit } from "./browser";
import { start, type Stack } from "./stack";

const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const issued = new Map<string, { who: string; nonce: string; challenge: string }>();
let stack: Stack;
let browser: Browser;
let provider: Server;
let issuer: string;
let dir: string;

function jwt(claims: object): string {
  const part = (v: object) => Buffer.from(JSON.stringify(v)).toString("base64url");
  const text = `${part({ alg: "RS256", kid: "one" })}.${part(claims)}`;
  return `${text}.${sign("sha256", Buffer.from(text), privateKey).toString("base64url")}`;
}

/** The provider asks who one is, and believes it. */
async function serve(): Promise<void> {
  provider = createServer((request, answer) => {
    const url = new URL(request.url ?? "/", issuer);
    const json = (v: object) => answer.setHeader("Content-Type", "application/json").end(JSON.stringify(v));
    if (url.pathname === "/.well-known/openid-configuration")
      json({
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/keys`,
      });
    else if (url.pathname === "/keys")
      json({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "one", alg: "RS256", use: "sig" }] });
    else if (url.pathname === "/authorize") {
      const back = (who: string) => {
        const code = randomUUID();
        issued.set(code, {
          who,
          nonce: url.searchParams.get("nonce") ?? "",
          challenge: url.searchParams.get("code_challenge") ?? "",
        });
        const to = new URL(url.searchParams.get("redirect_uri") ?? "");
        to.search = new URLSearchParams({ code, state: url.searchParams.get("state") ?? "" }).toString();
        return to.toString().replaceAll("&", "&amp;");
      };
      answer
        .setHeader("Content-Type", "text/html")
        .end(
          `<link rel="icon" href="data:,">${["olga", "jane"].map((w) => `<a href="${back(w)}">${w}</a>`).join(" ")}`,
        );
    } else if (url.pathname === "/token") {
      let text = "";
      request.on("data", (d: Buffer) => (text += d.toString()));
      request.on("end", () => {
        const form = new URLSearchParams(text);
        const g = issued.get(form.get("code") ?? "");
        issued.delete(form.get("code") ?? "");
        const proof = createHash("sha256")
          .update(form.get("code_verifier") ?? "")
          .digest("base64url");
        if (g === undefined || proof !== g.challenge) {
          answer.statusCode = 400;
          json({ error: "invalid_grant" });
          return;
        }
        const now = Math.floor(Date.now() / 1000);
        const claims = { iss: issuer, aud: "devpilot", sub: g.who, nonce: g.nonce, iat: now, exp: now + 600 };
        const name = g.who === "olga" ? "Olga Owner" : "Jane Developer";
        json({
          access_token: "a",
          token_type: "Bearer",
          id_token: jwt({ ...claims, name, email: `${g.who}@example.com`, email_verified: true }),
        });
      });
    } else answer.writeHead(404).end();
  }).listen(0, "127.0.0.1");
  await new Promise((done) => provider.once("listening", done));
  issuer = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
}

beforeAll(async () => {
  const program = process.env["DEVPILOT_PROGRAM"];
  if (program === undefined) throw new Error("DEVPILOT_PROGRAM must name the built all-in-one");
  await serve();
  dir = await mkdtemp(join(tmpdir(), "devpilot-people-"));
  const file = join(dir, "providers.yaml");
  await writeFile(
    file,
    `providers:
  - id: corp
    name: Example Corp
    issuer: ${issuer}
    clientId: devpilot
    rules:
      - {workspace: default, role: owner, email: olga@example.com}
`,
  );
  [stack, browser] = await Promise.all([start(program, "sample", ["--identity-providers-file", file]), launch()]);
});

afterAll(async () => {
  await browser?.close();
  await stack?.stop();
  provider?.close();
  if (dir !== undefined) await rm(dir, { recursive: true, force: true });
});

async function person(who: string, address: string): Promise<Page> {
  const page = await (await open(browser)).newPage();
  await page.goto(address);
  await page.getByRole("button", { name: "Sign in with Example Corp" }).click();
  await page.getByRole("link", { name: who }).click();
  await page.waitForURL(`${stack.url}/**`);
  return page;
}

test("one invites another, who comes, is made an admin and is removed; each sees it at once", async () => {
  const olga = await person("olga", `${stack.url}/sign-in`);
  await visit(olga, `${stack.url}/w/default/settings/members`);
  await olga.getByRole("list", { name: "Members" }).getByText("Olga Owner").waitFor();
  await olga.getByRole("button", { name: "Invite" }).click();
  await olga.getByLabel("E-mail address").fill("jane@example.com");
  await check(olga, "members-invite");
  await olga.getByRole("button", { name: "Make the link" }).click();
  const link = await olga.getByText(/#invitation=/).innerText();
  await olga.getByRole("button", { name: "Done" }).click();
  expect(await olga.getByText(/#invitation=/).count()).toBe(0);
  await olga.getByRole("list", { name: "Open invitations" }).getByText("jane@example.com", { exact: true }).waitFor();

  const jane = await person("jane", link);
  expect(jane.url()).not.toContain("invitation");
  await visit(jane, `${stack.url}/w/default/settings/members`);
  const row = olga.getByRole("listitem").filter({ hasText: "Jane Developer" });
  await row.waitFor(); // without loading anew
  await olga.getByText("None is open.").waitFor();

  // What a member may not do is said where it would be done.
  expect(await jane.getByRole("button", { name: "Invite" }).getAttribute("aria-disabled")).toBe("true");
  await jane.getByText("Ask one of its owners or admins").first().waitFor();
  expect(await jane.getByRole("button", { name: "Leave" }).getAttribute("aria-disabled")).toBe(null);
  await check(jane, "members-of-a-member");

  await visit(jane, `${stack.url}/w/default/settings/api-keys`);
  await jane.getByText("These are your own keys").waitFor();
  expect(await jane.getByRole("button", { name: "Create key" }).getAttribute("aria-disabled")).toBe("true");
  await check(jane, "api-keys-of-a-member");
  await visit(jane, `${stack.url}/w/default/settings/members`);

  await olga.getByLabel("Role of Jane Developer").selectOption("ADMIN");
  await jane.getByRole("heading", { name: "Invitations" }).waitFor();
  expect(await jane.getByRole("button", { name: "Invite" }).getAttribute("aria-disabled")).toBe(null);
  await check(olga, "members");
  await narrow(olga, "members");

  await visit(jane, `${stack.url}/w/default/settings/sessions`);
  await jane.getByText("(this one)").waitFor();
  await check(jane, "sessions");
  await narrow(jane, "sessions");

  // The membership ends a moment before the session. Her browser may ask in between.
  let between = 0;
  await jane.route("**/v1/me", async (route) => {
    const answer = await route.fetch();
    if (answer.status() !== 401 || between++ > 0) return route.fulfill({ response: answer });
    return route.fulfill({ json: { subject: "jane", label: "Jane Developer", workspaces: [] } });
  });
  await row.getByRole("button", { name: "Remove Jane Developer" }).click();
  await olga.getByRole("alertdialog").getByRole("button", { name: "Remove" }).click();
  await jane.waitForURL(/\/sign-in/);
  expect(between).toBeGreaterThan(1);
  await row.waitFor({ state: "detached" });
});
