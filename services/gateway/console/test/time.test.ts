import { describe, expect, test } from "vitest";
import { clock, duration, exact, relative, took, toTheHour } from "../src/lib/time";

const now = new Date("2026-03-12T14:20:05Z");
const before = (s: number) => new Date(now.getTime() - s * 1000);

describe("relative", () => {
  test.each([
    [0, "just now"],
    [9, "just now"],
    [-9, "just now"],
    [10, "10 s ago"],
    [59, "59 s ago"],
    [60, "1 min ago"],
    [12 * 60 + 59, "12 min ago"],
    [3600, "1 h ago"],
    [24 * 3600 - 1, "23 h ago"],
    [24 * 3600, "yesterday"],
    [48 * 3600, "2 days ago"],
    [21 * 24 * 3600, "3 weeks ago"],
    [70 * 24 * 3600, "2 months ago"],
    [800 * 24 * 3600, "2 years ago"],
    [-90, "in 1 min"],
    [-25 * 3600, "tomorrow"],
  ])("%i s before now is %s", (s, text) => expect(relative(before(s), now)).toBe(text));
});

describe("clock", () => {
  test("today has no date", () => expect(clock(new Date("2026-03-12T13:02:00Z"), now, "UTC")).toBe("13:02"));
  test("another day of the year has one", () =>
    expect(clock(new Date("2026-03-11T13:02:00Z"), now, "UTC")).toBe("11 Mar, 13:02"));
  test("another year has the year", () =>
    expect(clock(new Date("2025-12-31T23:59:00Z"), now, "UTC")).toBe("31 Dec 2025, 23:59"));
  test("what is today depends on the zone", () => {
    const t = new Date("2026-03-11T23:30:00Z");
    expect(clock(t, now, "UTC")).toBe("11 Mar, 23:30");
    expect(clock(t, now, "Europe/Berlin")).toBe("00:30");
  });
  test("midnight is 00, not 24", () => expect(clock(new Date("2026-03-12T00:00:00Z"), now, "UTC")).toBe("00:00"));
});

test("the exact time names its zone and UTC, through a change of the clocks", () => {
  expect(exact(new Date("2026-03-29T00:59:59Z"), "Europe/Berlin")).toMatch(
    /^Sun,? 29 Mar 2026,? (at )?01:59:59 (CET|GMT\+1) \(00:59:59 UTC\)$/,
  );
  expect(exact(new Date("2026-03-29T01:00:00Z"), "Europe/Berlin")).toMatch(/03:00:00 (CEST|GMT\+2) \(01:00:00 UTC\)$/);
});

describe("a time that is known to the hour", () => {
  const now = new Date("2026-11-29T16:08:30Z");
  test.each([
    ["2026-11-29T16:00:00Z", "within the hour"],
    ["2026-11-29T15:00:00Z", "about 1 h ago"],
    ["2026-11-29T05:00:00Z", "about 11 h ago"],
    ["2026-11-20T05:00:00Z", "9 days ago"],
  ])("%s is %s", (at, text) => expect(toTheHour(new Date(at), now)).toBe(text));
});

describe("duration", () => {
  test.each([
    [-500, "0.0 s"],
    [0, "0.0 s"],
    [84, "under 0.1 s"],
    [100, "0.1 s"],
    [449, "0.4 s"],
    [9999, "9.9 s"],
    [10_000, "10 s"],
    [59_999, "59 s"],
    [60_000, "1 min"],
    [185_000, "3 min 5 s"],
    [3_600_000, "1 h"],
    [3_720_000, "1 h 2 min"],
  ])("%i ms is %s", (ms, text) => expect(duration(ms)).toBe(text));
});

test("what has not begun took nothing that could be told", () => {
  expect(took(undefined, undefined, now)).toBeUndefined();
  expect(took("2026-03-12T14:20:00Z", undefined, now)).toBe(5000);
  expect(took("2026-03-12T14:20:00Z", "2026-03-12T14:20:01Z", now)).toBe(1000);
});
