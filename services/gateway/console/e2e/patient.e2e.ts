// Access is revoked on Bitbucket and Devpilot finds out: two refusals of the refresh token, of which the
// second comes ten minutes after the first (an earlier one would prove nothing: BITBUCKET.md#lock-out).
// It takes as long as it takes, so it runs with CONSOLE_PATIENT=1 only.
import { afterAll, beforeAll, expect, test } from "vitest";
import { check, grant, narrow, scene, type Scene } from "./browser";
import { eventually } from "./stack";

let s: Scene;

beforeAll(async () => {
  s = await scene("sample");
});

afterAll(() => s?.end());

test(
  "access that was revoked on Bitbucket is told after the second refusal, and Reconnect mends it",
  { timeout: 18 * 60_000 },
  async () => {
    const { page } = s;
    await s.visit("settings/integrations");
    await grant(s.stack, page);
    await page.getByText("@jane-dev").waitFor();

    const bitbucket = await s.context.newPage();
    await bitbucket.goto(`${s.stack.site}/account/settings/app-authorizations/`);
    await bitbucket.getByRole("button", { name: "Revoke" }).click();
    await bitbucket.getByRole("button", { name: "Revoke" }).waitFor({ state: "detached" });
    await bitbucket.close();

    await s.watch.expecting(/409|429|503/, async () => {
      // The first refusal may pass: the page says so, and when it is tried again.
      await eventually("the first refusal", async () => {
        await page.getByRole("button", { name: "Refresh Token" }).click();
        return page
          .getByText(/^Bitbucket refused the refresh token at .* That can pass, so we try again at/)
          .waitFor({ timeout: 5000 })
          .then(
            () => true,
            () => false,
          );
      });
      await check(page, "integrations-refused-once");
      await narrow(page, "integrations-refused-once");
      // Nobody does anything: the page tells by itself.
      await page.getByText("Bitbucket must be connected again.").waitFor({ timeout: 14 * 60_000 });
    });
    const banner = page.locator(".banner.tone-bad");
    await banner
      .getByText(
        /Bitbucket refused the refresh token twice \(\d\d:\d\d, \d\d:\d\d\)\. This happens when access was revoked/,
      )
      .waitFor();
    expect((await banner.textContent())?.match(/apps and settings stay/g)).toHaveLength(1);
    expect(await banner.getByRole("link", { name: "App authorizations on Bitbucket" }).getAttribute("href")).toBe(
      `${s.stack.site}/account/settings/app-authorizations/`,
    );
    await expect.poll(() => page.title()).toBe("▲ Must be connected again · Integrations · Devpilot");
    await check(page, "integrations-refused-twice");
    await narrow(page, "integrations-refused-twice");
    await grant(s.stack, page, "Reconnect");
    await page.getByText("Bitbucket is connected.").waitFor();
    await page.getByText("Bitbucket must be connected again.").waitFor({ state: "detached" });
    s.calm();
  },
);
