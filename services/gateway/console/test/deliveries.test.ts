import { expect, test } from "vitest";
import { bodyGone, deliveryFilter, rangeTrouble, withinAbout } from "../src/lib/deliveries";

test("an address asks for deliveries; what cannot be read asks for nothing", () => {
  const filter = (query: string) => deliveryFilter(new URLSearchParams(query));
  expect(filter("branch=main&commit=58a&outcome=FAILED")).toEqual({ branch: "main", commit: "58a", outcome: "FAILED" });
  expect(filter("branch=+&outcome=odd&from=yesterday&to=2026-13-99x")).toEqual({});
  const day = filter("from=2026-11-28&to=2026-11-28");
  expect(Date.parse(day.before ?? "") - Date.parse(day.after ?? "")).toBe(24 * 3_600_000);
  expect(filter("from=2026-11-28&to=2026-11-20").before).toBeUndefined();
});

test("bodies are kept for seven days", () => {
  const now = Date.parse("2026-11-29T12:00:00Z");
  expect(bodyGone("2026-11-22T13:00:00Z", now)).toBe(false);
  expect(bodyGone("2026-11-22T11:00:00Z", now)).toBe(true);
  expect(bodyGone(undefined, now)).toBe(true);
});

test("a range names at most fifty deliveries, the first before the last", () => {
  expect(rangeTrouble(1, 50)).toBeUndefined();
  expect(rangeTrouble(7, 7)).toBeUndefined();
  expect(rangeTrouble(1, 51)).toContain("50");
  expect(rangeTrouble(3, 2)).toContain("before");
  expect(rangeTrouble(0, 2)).toContain("from 1");
  expect(rangeTrouble(NaN, 2)).toContain("from 1");
  expect(rangeTrouble(1.5, 2)).toContain("from 1");
});

test("how long a push is looked for comes from the API", () => {
  expect(withinAbout("93s")).toBe("within about 2 minutes");
  expect(withinAbout("33.5s")).toBe("within about 34 seconds");
  expect(withinAbout("720s")).toBe("within about 12 minutes");
  expect(withinAbout(undefined)).toBe("");
  expect(withinAbout("soon")).toBe("");
});
