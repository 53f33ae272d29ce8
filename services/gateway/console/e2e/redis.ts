// A Redis of a test's own, which is told to forget: where a test makes in a minute what Bitbucket's limits spread over hours.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually, freePort } from "./stack";

export interface Redis {
  url: string;
  /** Forgets all, the calls of the last hour among it. */
  forget: () => Promise<void>;
  stop: () => Promise<void>;
}

/** Starts redis-server on a free port, with nothing kept on the disk. */
export async function startRedis(): Promise<Redis> {
  const dir = await mkdtemp(join(tmpdir(), "devpilot-redis-"));
  const port = await freePort();
  const server = spawn(
    "redis-server",
    ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir],
    { stdio: "ignore" },
  );
  const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  const ask = (command: string, answer: string) =>
    new Promise<void>((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => socket.write(`${command}\r\n`));
      socket.once("error", reject);
      socket.once("data", (data) => {
        socket.destroy();
        if (data.toString().startsWith(answer)) resolve();
        else reject(new Error(`${command}: ${data.toString()}`));
      });
    });
  await eventually("Redis to answer", async () => {
    await ask("PING", "+PONG");
    return true;
  });
  return {
    url: `redis://127.0.0.1:${port}`,
    forget: () => ask("FLUSHALL", "+OK"),
    stop: async () => {
      server.kill();
      await ended;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
