import { describe, expect, test } from "vitest";
import { fragment, hookLines, LogBuffer, linesOf, search, type LogRecord } from "../src/lib/log";
import { plain } from "../src/lib/text";

const record = (line: number, text = `line ${line}`): LogRecord => ({ line, text });
const lines = (b: LogBuffer) => b.records.map((r) => r.line);

describe("a log that is read over several connections", () => {
  test("has each line once and in order, whatever is sent again", () => {
    const b = new LogBuffer();
    for (const n of [1, 2, 3]) expect(b.add(record(n))).toBe("new");
    // The connection broke after line 3 was shown; the server begins a little earlier.
    for (const n of [2, 3]) expect(b.add(record(n, "again"))).toBe("known");
    for (const n of [4, 5]) expect(b.add(record(n))).toBe("new");
    expect(lines(b)).toEqual([1, 2, 3, 4, 5]);
    expect(b.records[1]?.text).toBe("line 2");
    expect(b.last).toBe(5);
  });

  test("refuses a line that leaves a gap, and goes on where it was", () => {
    const b = new LogBuffer();
    b.add(record(1));
    expect(b.add(record(3))).toBe("gap");
    expect(b.last).toBe(1);
    expect(b.add(record(2))).toBe("new");
    expect(b.add(record(3))).toBe("new");
    expect(lines(b)).toEqual([1, 2, 3]);
  });

  test("begins where an old log begins", () => {
    const b = new LogBuffer();
    expect(b.last).toBe(0);
    expect(b.add(record(501))).toBe("new");
    expect(b.last).toBe(501);
    expect(b.add(record(500))).toBe("known");
    expect(lines(b)).toEqual([501]);
  });

  test("does not believe numbers that are none", () => {
    const b = new LogBuffer();
    for (const n of [0, -1, 1.5, Number.NaN]) expect(b.add(record(n))).toBe("known");
    expect(b.records).toHaveLength(0);
  });

  test("any order of repeats ends in the same log", () => {
    let seed = 7;
    const random = (n: number) => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % n;
    const b = new LogBuffer();
    // A reader that obeys: after a gap it asks from its last line.
    let sent = 1;
    for (let i = 0; i < 2000 && b.last < 300; i++) {
      if (random(5) === 0) sent = Math.max(1, b.last - random(10));
      if (b.add(record(sent)) === "gap") sent = b.last + 1;
      else sent++;
      if (random(20) === 0) sent++;
    }
    expect(lines(b)).toEqual(Array.from({ length: b.last }, (_, i) => i + 1));
    expect(b.last).toBeGreaterThanOrEqual(300);
  });

  test("a snapshot does not change afterwards", () => {
    const b = new LogBuffer();
    b.add(record(1));
    const seen = b.snapshot();
    b.add(record(2));
    expect(seen).toHaveLength(1);
  });
});

test("search looks at what a person sees, case ignored", () => {
  const records = [record(1, "\u001b[31mERROR\u001b[0m: no"), record(2, "fine"), record(3, "an error")];
  expect(search(records, "error", plain)).toEqual([0, 2]);
  expect(search(records, "31m", plain)).toEqual([]);
  expect(search(records, "  ", plain)).toEqual([]);
});

test.each([
  ["#L1", { from: 1, to: 1 }],
  ["#L120", { from: 120, to: 120 }],
  ["#L3-L9", { from: 3, to: 9 }],
  ["#L9-L3", undefined],
  ["#L3-L", undefined],
  ["#L0", undefined],
  ["#L-1", undefined],
  ["#L12x", undefined],
  ["", undefined],
])("the fragment %j names the lines %j", (hash, lines) => expect(linesOf(hash)).toEqual(lines));

test("a hook's lines are those it printed in its stage", () => {
  const list = [
    record(1),
    { ...record(2), stage: "POST_SETUP", hook: "build" },
    { ...record(3), stage: "POST_SETUP", hook: "build" },
    { ...record(4), stage: "POST_RELEASE", hook: "build" },
  ];
  expect(hookLines(list, "POST_SETUP", "build")).toEqual({ from: 2, to: 3 });
  expect(hookLines(list, "POST_SETUP", "test")).toBeUndefined();
  expect(fragment({ from: 2, to: 3 })).toBe("#L2-L3");
  expect(fragment({ from: 4, to: 4 })).toBe("#L4");
});
