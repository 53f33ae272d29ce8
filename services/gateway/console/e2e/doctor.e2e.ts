// The doctor: what every service says of the installation, for its operator; how far it is, what failed and how to
// mend it, a service that does not answer, and what somebody else sees.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, scene, type Scene } from "./browser";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
});

afterAll(() => s?.end());

const row = (name: string) => page.getByRole("listitem").filter({ has: page.getByText(name, { exact: true }) });

/** Both schemes, wide and at 390 px. */
async function pictures(name: string): Promise<void> {
  await check(page, name, true);
  await page.setViewportSize({ width: 390, height: 800 });
  await check(page, `${name}-390`, true);
  await page.setViewportSize({ width: 1280, height: 860 });
}

test("an operator asks, sees what each service found, and asks again", async () => {
  await s.visit("apps");
  await page.getByRole("link", { name: "Doctor" }).click();
  await page.getByText("Nothing was asked yet.").waitFor();
  await pictures("doctor-before");
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  await page.getByRole("status").filter({ hasText: "Asked" }).waitFor();
  await page.getByRole("button", { name: "Ask again" }).waitFor();
  for (const service of ["auth", "repo", "webhook", "deployer", "devpilot"])
    await page.getByRole("heading", { name: service, exact: true }).waitFor();
  for (const name of [
    "NATS",
    "Redis",
    "Keyset",
    "OAuth consumer",
    "Deliveries from outside",
    "git",
    "Disk",
    "Clock",
    "Public URL",
  ])
    await row(name).getByText("Well", { exact: true }).first().waitFor();
  expect(
    await row("OAuth consumer")
      .getByText(/^Bitbucket takes the key and the secret/)
      .count(),
  ).toBe(1);
  await pictures("doctor-well");
  s.calm();
});

test("what fails says so, with what to do, and how far it is shows meanwhile", async () => {
  // Bitbucket does not answer for a while, so that auth is not done yet, and then it refuses.
  const { id } = (await s.stack.control("POST", "faults", {
    kind: "slow",
    route: "oauth",
    delay: "3s",
  })) as { id: string };
  await expect
    .poll(
      async () => {
        await page.getByRole("button", { name: "Ask again" }).click();
        return page
          .getByText(/\d of \d services have answered\./)
          .waitFor({ timeout: 2000 })
          .then(() => true)
          .catch(() => false);
      },
      { timeout: 60_000 },
    )
    .toBe(true);
  await page.getByRole("button", { name: "Asking…" }).waitFor();
  await row("Answers").getByText("Being asked").first().waitFor();
  await page.reload(); // the run goes on, and is found again
  await page.getByRole("button", { name: /^Ask/ }).waitFor();
  await page.getByRole("button", { name: "Ask again" }).waitFor();
  await s.stack.control("DELETE", `faults/${id}`);
  s.calm();
});

test("a service that does not answer is a line of its own", async () => {
  const time = new Date().toISOString();
  const checks = [
    {
      name: "service",
      service: "auth",
      state: "FAILED",
      found: "auth did not answer within 15s: nothing is known of how it is.",
      remedy: "Look at its log.",
      time,
      durationMillis: 15000,
    },
    {
      name: "nats-replicas",
      service: "webhook",
      state: "WARNING",
      found: "Servers of NATS that are not heard of: n2 (it has replicas of DEVPILOT_INBOX).",
      remedy: "Start them.",
      time,
      durationMillis: 40,
    },
    {
      name: "worker",
      service: "deployer",
      where: "default: host-abcdefgh",
      state: "SKIPPED",
      found: "The worker does not answer.",
      time,
      durationMillis: 1,
    },
    {
      name: "something-new",
      service: "deployer",
      state: "OK",
      found: "a-very-long-word-".repeat(20),
      time,
      durationMillis: 1,
    },
  ];
  const report = {
    program: "devpilot",
    version: "v1",
    time,
    state: "FAILED",
    ok: 1,
    warnings: 1,
    failed: 1,
    skipped: 1,
    checks,
    running: false,
  };
  await page.route("**/v1/doctor", (route) => route.fulfill({ json: report }));
  await page.reload();
  await page.getByText("1 of 4 checks failed, 1 has a warning. 1 was not asked.").waitFor();
  await row("Answers").getByText("auth did not answer within 15s: nothing is known of how it is.").waitFor();
  await row("Answers").getByText("Look at its log.").waitFor();
  await row("NATS: replicas").getByText("Warning", { exact: true }).waitFor();
  await row("Worker").getByText("Not asked", { exact: true }).waitFor();
  await row("something-new").waitFor();
  await pictures("doctor-failed");
  await page.unroute("**/v1/doctor");
  s.calm();
});

test("who is no operator is told where to look instead", async () => {
  await page.route("**/v1/me", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...((await answer.json()) as object), operator: false } });
  });
  await page.reload();
  await page.getByText("This is about the whole installation, for its operators.").waitFor();
  expect(await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Doctor" }).count()).toBe(0);
  await pictures("doctor-for-others");
  await page.getByRole("main").getByRole("link", { name: "Integrations" }).click();
  await page.getByRole("heading", { name: "Integrations" }).first().waitFor();
  s.calm();
});
