import { expect, test } from "vitest";
import { expiry } from "../src/lib/expiry";

const now = Date.UTC(2026, 10, 29, 12, 34, 56, 789);

test("a key ends after whole days, at the end of the chosen day, or never", () => {
  expect(expiry("7", "", now)).toBe("2026-12-06T12:34:00.000Z");
  expect(expiry("365", "", now)).toBe("2027-11-29T12:34:00.000Z");
  expect(expiry("never", "2026-12-01", now)).toBeUndefined();
  expect(expiry("day", "", now)).toBeUndefined();
  expect(expiry("day", "2026-12", now)).toBeUndefined();
  expect(expiry("day", "2026-12-31", now)).toBe(new Date(2027, 0, 1).toISOString());
});
