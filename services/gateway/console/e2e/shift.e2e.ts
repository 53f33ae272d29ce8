// What one is about to press stays where it is while the rest of a page comes.
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect, scene, type Scene } from "./browser";
import { createApp } from "./stack";

let s: Scene;

beforeAll(async () => {
  s = await scene("sample");
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
});

afterAll(() => s?.end());

interface Shift extends PerformanceEntry {
  value: number;
}

/** How much of the window moved by itself while the page came, as browsers count it: 0.1 is what they call good. */
async function moved(path: string): Promise<number> {
  const page = await s.context.newPage();
  await page.addInitScript(() => {
    const sum = globalThis as unknown as { moved: number };
    sum.moved = 0;
    new PerformanceObserver((list) => {
      for (const e of list.getEntries() as Shift[]) sum.moved += e.value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.goto(s.at(path), { waitUntil: "networkidle" });
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const sum = await page.evaluate(() => (globalThis as unknown as { moved: number }).moved);
  await page.close();
  return sum;
}

test("nothing jumps while a page comes", async () => {
  await moved("apps"); // the bar of the emulator is known from now on
  const found: Record<string, number> = {};
  for (const path of ["apps", "apps/web", "apps/web?tab=settings", "apps/web/deployments/1", "activity", "apps/new"])
    found[path] = await moved(path);
  for (const path of ["integrations", "notifications", "members", "workspaces", "api-keys", "sessions"])
    found[path] = await moved(`settings/${path}`);
  const jumps = Object.entries(found).filter(([, sum]) => sum > 0.05);
  expect(jumps, JSON.stringify(found)).toEqual([]);
});

test("the switch of auto-deploy is where it will be from the first moment on", async () => {
  const page = await s.context.newPage();
  await page.addInitScript(() => {
    const seen = globalThis as unknown as { places: number[] };
    seen.places = [];
    const look = () => {
      const y = document.querySelector(".auto")?.getBoundingClientRect().y;
      if (y !== undefined) seen.places.push(y);
      requestAnimationFrame(look);
    };
    look();
  });
  await page.goto(s.at("apps/web"), { waitUntil: "networkidle" });
  await page.getByText("A bar opens its deployment.").waitFor();
  const places = await page.evaluate(() => (globalThis as unknown as { places: number[] }).places);
  expect(Math.max(...places) - Math.min(...places), places.join(" ")).toBeLessThanOrEqual(16);
  await page.close();
});
