// The product as it ships, with the emulator: started on free ports, stopped at the end, its data in
// a temporary directory. The product is on 127.0.0.1 and the emulator on localhost, so that the two
// are different sites, as in life.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const exec = promisify(execFile);

export interface Stack {
  url: string;
  site: string;
  adminToken: string;
  /** Where the product keeps its data. */
  data: string;
  /** A call of the emulator's control API. */
  control: (method: string, path: string, body?: unknown) => Promise<unknown>;
  /** A call of the product's API as the operator. */
  api: <T>(method: string, path: string, body?: unknown) => Promise<T>;
  /** Breaks every connection between browser and product; while held, new ones are refused. */
  cut: (hold?: boolean) => void;
  /** Lets connections through again. */
  mend: () => void;
  /** Commits to the repository and pushes it to the branch, which may be a new one that begins at another. */
  push: (repository: string, branch: string, message: string, from?: string) => Promise<void>;
  /** What it has printed so far. */
  printed: () => string;
  /** Kills the product as a power cut does. */
  kill: () => Promise<void>;
  /** Starts it again, on the same data and ports. */
  begin: () => Promise<void>;
  stop: () => Promise<void>;
}

/** A port of this machine where nobody listens, given out once. */
export async function freePort(): Promise<number> {
  for (;;) {
    // Not one of those that the system gives to connections, which could have it before the product does.
    const port = 10_000 + Math.floor(Math.random() * 10_000);
    if (given.has(port)) continue;
    given.add(port);
    const free = await new Promise<boolean>((resolve) => {
      const s = connect(port, "127.0.0.1", () => s.destroy());
      s.once("error", (e: NodeJS.ErrnoException) => resolve(e.code === "ECONNREFUSED"));
      s.once("close", () => resolve(false)); // after an error it is decided
    });
    if (free) return port;
  }
}

const given = new Set<number>();

/** Waits until the condition holds; says what it waited for when it does not in time. */
export async function eventually<T>(
  what: string,
  condition: () => Promise<T | undefined | false>,
  ms = 60_000,
): Promise<T> {
  const deadline = Date.now() + ms;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      const got = await condition();
      if (got !== undefined && got !== false) return got;
    } catch (e) {
      last = e;
    }
    await new Promise((r) => setTimeout(r, 100));
  }
  throw new Error(`waited ${ms / 1000} s for ${what}${last === undefined ? "" : `: ${String(last)}`}`);
}

interface Gate {
  port: number;
  cut: (hold?: boolean) => void;
  mend: () => void;
  close: () => void;
}

/** What browsers reach the product through: it can break a connection as networks do. */
async function gate(target: number): Promise<Gate> {
  const open = new Set<Socket>();
  let held = false;
  const server = createServer((from) => {
    if (held) {
      from.destroy();
      return;
    }
    const to = connect(target, "127.0.0.1");
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      open.add(one);
      one.setNoDelay(true);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  const cut = (hold = false) => {
    held = hold;
    for (const s of open) s.destroy();
  };
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      if (address === null || typeof address !== "object") reject(new Error("no port"));
      else {
        resolve({
          port: address.port,
          cut,
          mend: () => {
            held = false;
          },
          close: () => {
            server.close();
            cut(true);
          },
        });
      }
    });
  });
}

export async function start(
  program: string,
  scenario: string,
  more: string[] = [],
  settings: Record<string, string> = {},
): Promise<Stack> {
  const dir = await mkdtemp(join(tmpdir(), "devpilot-console-"));
  const [port, ops, bitbucket, live] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const way = await gate(port);
  const url = `http://127.0.0.1:${way.port}`;
  const site = `http://localhost:${bitbucket}`;
  const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith("DEVPILOT_")));
  const args = [
    "--emulator",
    "--emulator-scenario",
    scenario,
    "--data-dir",
    join(dir, "data"),
    "--listen",
    `127.0.0.1:${port}`,
    "--public-url",
    url,
    "--ops-listen",
    `127.0.0.1:${ops}`,
    "--emulator-listen",
    `localhost:${bitbucket}`,
    "--live-listen",
    `127.0.0.1:${live}`,
    ...more,
  ];
  let output = "";
  let child: ChildProcess;
  let ended: Promise<void>;
  const begin = async () => {
    child = spawn(program, args, { env: { ...env, ...settings }, stdio: ["ignore", "pipe", "pipe"] });
    child.stdout?.on("data", (d: Buffer) => (output += d.toString()));
    child.stderr?.on("data", (d: Buffer) => (output += d.toString()));
    ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    const died = ended.then(() => {
      throw new Error(`the product ended:\n${output.slice(-3000)}`);
    });
    await Promise.race([
      died,
      eventually("the product to be ready", async () => (await fetch(`http://127.0.0.1:${ops}/readyz`)).ok, 90_000),
    ]);
    died.catch(() => undefined); // from here on its end is told by what it no longer answers
  };
  const kill = async () => {
    child.kill("SIGKILL");
    await ended;
  };
  const stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
    await ended;
    clearTimeout(timer);
    way.close();
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await begin();
  } catch (e) {
    await stop();
    throw new Error(`${String(e)}\n${output.slice(-4000)}`);
  }
  const adminToken = (await readFile(join(dir, "data", "admin.token"), "utf8")).trim();
  const call = async (
    base: string,
    method: string,
    path: string,
    body: unknown,
    headers: Record<string, string>,
  ): Promise<unknown> => {
    const r = await fetch(base + path, {
      method,
      headers: { "Content-Type": "application/json", ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await r.text();
    if (!r.ok) throw new Error(`${method} ${path}: ${r.status} ${text}`);
    return text === "" ? undefined : (JSON.parse(text) as unknown);
  };
  let pushes = 0;
  return {
    url,
    site,
    adminToken,
    data: join(dir, "data"),
    printed: () => output,
    kill,
    begin,
    stop,
    cut: way.cut,
    mend: way.mend,
    control: (method, path, body) => call(site, method, `/_emulator/${path}`, body, {}),
    api: <T>(method: string, path: string, body?: unknown) =>
      call(`http://127.0.0.1:${port}`, method, path, body, { Authorization: `Bearer ${adminToken}` }) as Promise<T>,
    push: async (repository, branch, message, from = branch) => {
      const work = join(dir, `push-${pushes++}`);
      const remote = site.replace("http://", "http://jane-dev:jane-dev-password@") + `/${repository}.git`;
      const git = (...args: string[]) =>
        exec("git", ["-c", "user.name=Jane Developer", "-c", "user.email=jane@example.com", ...args], {
          env: { ...env, GIT_TERMINAL_PROMPT: "0", GIT_CONFIG_NOSYSTEM: "1", HOME: dir },
        });
      await git("clone", "-q", "--depth", "1", "--branch", from, remote, work);
      await git("-C", work, "commit", "-q", "--allow-empty", "-m", message);
      await git("-C", work, "push", "-q", "origin", `HEAD:${branch}`);
    },
  };
}

/** Creates an app over the API and, if asked to, waits until its first deployment is live. */
export async function createApp(
  stack: Stack,
  id: string,
  fullName: string,
  deployNow: boolean,
  branch = "main",
  workspace = "default",
): Promise<void> {
  const list = await stack.api<{ repositories: { id: string; fullName: string }[] }>(
    "GET",
    `/v1/workspaces/${workspace}/repositories?query=${encodeURIComponent(fullName.split("/")[1] ?? "")}`,
  );
  const repository = list.repositories.find((r) => r.fullName === fullName)?.id;
  if (repository === undefined) throw new Error(`no repository ${fullName}`);
  await stack.api("POST", `/v1/workspaces/${workspace}/apps`, {
    appId: id,
    app: { repository, branch, autoDeploy: true },
    deployNow,
  });
  if (deployNow) {
    await eventually(
      `${id} to be live`,
      async () =>
        (await stack.api<{ live?: unknown }>("GET", `/v1/workspaces/${workspace}/apps/${id}`)).live !== undefined,
    );
  }
}
