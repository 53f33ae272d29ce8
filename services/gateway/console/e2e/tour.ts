// The pictures of the README's tour: taken where CONSOLE_TOUR is set (`make tour`), otherwise held to be there.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import type { Page } from "playwright-core";
import { paletteOf, palettePng } from "./png";

const dir = join(import.meta.dirname, "../tour");
const taken: string[] = [];

// They are in the repository, for good: small ones.
const mostBytes = 60 << 10;
const mostBytesTogether = 500 << 10;

/** Takes a picture of what is on the screen, in the light scheme. */
export async function tour(page: Page, name: string): Promise<void> {
  taken.push(`${name}.png`);
  if (process.env["CONSOLE_TOUR"] === undefined) return;
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.evaluate(() => scrollTo(0, 0));
  const picture = await page.screenshot({ animations: "disabled", caret: "hide" });
  await writeFile(join(dir, `${name}.png`), await palettePng(page.context(), picture));
}

/** The directory and the README have the pictures that were taken, and no other. */
export async function tourIsWhole(): Promise<void> {
  const there = (await readdir(dir)).filter((f) => f.endsWith(".png")).sort();
  expect(there).toEqual(taken.toSorted());
  let together = 0;
  for (const f of there) {
    const png = await readFile(join(dir, f));
    expect(paletteOf(png), `${f} has a palette`).toBe(true);
    expect(png.length, f).toBeLessThan(mostBytes);
    together += png.length;
  }
  expect(together).toBeLessThan(mostBytesTogether);
  const readme = await readFile(join(dir, "../../../../README.md"), "utf8");
  expect([...readme.matchAll(/\(services\/gateway\/console\/tour\/([^)]+)\)/g)].map((m) => m[1])).toEqual(taken);
}
