// The pictures of the README's tour: made where CONSOLE_TOUR is set, and otherwise held to be there.
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import type { Page } from "playwright-core";

const dir = join(import.meta.dirname, "../../../../deploy/tour");
const taken: string[] = [];

/** All of them together stay small: they are in the repository. */
const mostBytes = 600 << 10;

/** Takes a picture of what is on the screen, in the light scheme. */
export async function tour(page: Page, name: string): Promise<void> {
  taken.push(`${name}.png`);
  if (process.env["CONSOLE_TOUR"] === undefined) return;
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.evaluate(() => scrollTo(0, 0));
  await writeFile(join(dir, `${name}.png`), await page.screenshot({ animations: "disabled", caret: "hide" }));
}

/** The directory and the README have the pictures that were taken, and no other. */
export async function tourIsWhole(): Promise<void> {
  const there = (await readdir(dir)).filter((f) => f.endsWith(".png")).sort();
  expect(there).toEqual(taken.toSorted());
  let bytes = 0;
  for (const f of there) {
    expect((await readFile(join(dir, f))).subarray(1, 4).toString(), f).toBe("PNG");
    bytes += (await stat(join(dir, f))).size;
  }
  expect(bytes).toBeLessThan(mostBytes);
  const readme = await readFile(join(dir, "../../README.md"), "utf8");
  expect([...readme.matchAll(/\(deploy\/tour\/([^)]+)\)/g)].map((m) => m[1])).toEqual(taken);
}
