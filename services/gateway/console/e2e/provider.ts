// A small identity provider: it asks who one is, and believes it.
import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { open } from "./browser";

export interface Person {
  name: string;
  email: string;
  /** What a rule makes of the person in the workspace "default"; nothing where none does. */
  role?: "owner" | "admin" | "member";
}

export interface Provider {
  /** What the product is started with. */
  args: string[];
  /** Signs somebody in, in a browser of their own, by way of an address of the product. */
  person: (browser: Browser, who: string, address: string) => Promise<Page>;
  stop: () => Promise<void>;
}

/** Starts a provider that knows these people, by the word that chooses each. */
export async function provide(people: Record<string, Person>): Promise<Provider> {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const issued = new Map<string, { who: string; nonce: string; challenge: string }>();
  let issuer = "";
  const jwt = (claims: object): string => {
    const part = (v: object) => Buffer.from(JSON.stringify(v)).toString("base64url");
    const text = `${part({ alg: "RS256", kid: "one" })}.${part(claims)}`;
    return `${text}.${sign("sha256", Buffer.from(text), privateKey).toString("base64url")}`;
  };
  const server = createServer((request, answer) => {
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
      const links = Object.keys(people).map((who) => `<a href="${back(who)}">${who}</a>`);
      answer.setHeader("Content-Type", "text/html").end(`<link rel="icon" href="data:,">${links.join(" ")}`);
    } else if (url.pathname === "/token") {
      let text = "";
      request.on("data", (d: Buffer) => (text += d.toString()));
      request.on("end", () => {
        const form = new URLSearchParams(text);
        const code = form.get("code") ?? "";
        const given = issued.get(code);
        issued.delete(code);
        const proof = createHash("sha256")
          .update(form.get("code_verifier") ?? "")
          .digest("base64url");
        const person = people[given?.who ?? ""];
        if (given === undefined || person === undefined || proof !== given.challenge) {
          answer.statusCode = 400;
          json({ error: "invalid_grant" });
          return;
        }
        const now = Math.floor(Date.now() / 1000);
        const claims = { iss: issuer, aud: "devpilot", sub: given.who, nonce: given.nonce, iat: now, exp: now + 600 };
        json({
          access_token: "a",
          token_type: "Bearer",
          id_token: jwt({ ...claims, name: person.name, email: person.email, email_verified: true }),
        });
      });
    } else answer.writeHead(404).end();
  }).listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const dir = await mkdtemp(join(tmpdir(), "devpilot-provider-"));
  const file = join(dir, "providers.yaml");
  const rules = Object.values(people)
    .filter((p) => p.role !== undefined)
    .map((p) => `      - {workspace: default, role: ${p.role}, email: ${p.email}}\n`);
  await writeFile(
    file,
    `providers:\n  - id: corp\n    name: Example Corp\n    issuer: ${issuer}\n    clientId: devpilot\n    rules:\n${rules.join("")}`,
  );
  return {
    args: ["--identity-providers-file", file],
    person: async (browser, who, address) => {
      const page = await (await open(browser)).newPage();
      await page.goto(address);
      await page.getByRole("button", { name: "Sign in with Example Corp" }).click();
      await page.getByRole("link", { name: who, exact: true }).click();
      await page.waitForURL(`${new URL(address).origin}/**`);
      return page;
    },
    stop: async () => {
      server.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
