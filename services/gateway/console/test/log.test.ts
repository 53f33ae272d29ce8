import { describe, expect, test, vi } from "vitest";
import { fragment, holds, LogBuffer, linesOf, LogSearch, type LogLines, type LogRecord } from "../src/lib/log";
import { plain } from "../src/lib/text";

const record = (line: number, text = `line ${line}`): LogRecord => ({ line, text });
const all = (l: LogLines) => Array.from({ length: l.length }, (_, i) => l.at(i));
const lines = (b: LogBuffer) => all(b.snapshot()).map((r) => r?.line);
const bufferOf = (list: LogRecord[]) => {
  const b = new LogBuffer();
  for (const r of list) b.add(r);
  return b;
};

describe("a log that is read over several connections", () => {
  test("has each line once and in order, whatever is sent again", () => {
    const b = new LogBuffer();
    for (const n of [1, 2, 3]) expect(b.add(record(n))).toBe("new");
    // The connection broke after line 3 was shown; the server begins a little earlier.
    for (const n of [2, 3]) expect(b.add(record(n, "again"))).toBe("known");
    for (const n of [4, 5]) expect(b.add(record(n))).toBe("new");
    expect(lines(b)).toEqual([1, 2, 3, 4, 5]);
    expect(b.snapshot().at(1)?.text).toBe("line 2");
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
    expect(b.snapshot()).toHaveLength(0);
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

  test("a snapshot does not change afterwards, and copies no line", () => {
    const b = bufferOf([{ ...record(1), stage: "BUILD" }]);
    const before = b.snapshot();
    b.add({ ...record(2), stage: "BUILD" });
    const after = b.snapshot();
    expect(before).toHaveLength(1);
    expect(before.at(1)).toBeUndefined();
    expect(before.span("BUILD")).toEqual({ from: 1, to: 1 });
    expect(after.span("BUILD")).toEqual({ from: 1, to: 2 });
    expect(after).not.toBe(before);
    expect(after["list"]).toBe(before["list"]);
  });
});

describe("a search", () => {
  test("looks at what a person sees, case ignored", () => {
    const log = bufferOf([record(1, "\u001b[31mERROR\u001b[0m: no"), record(2, "fine"), record(3, "an error")]);
    const hits = (query: string) => {
      const s = new LogSearch(query, plain);
      expect(s.scan(log.snapshot(), 100)).toBe(false);
      return s.hits;
    };
    expect(hits("error")).toEqual([0, 2]);
    expect(hits(" Error ")).toEqual([0, 2]);
    expect(hits("31m")).toEqual([]);
    expect(hits("  ")).toEqual([]);
  });

  test("looks at each line once, however often lines come and in however many turns", () => {
    const b = new LogBuffer();
    let looked = 0;
    const s = new LogSearch("7", (text) => {
      looked++;
      return text;
    });
    for (let line = 1; line <= 20_000; line++) {
      b.add(record(line, String(line)));
      if (line % 50 === 0) while (s.scan(b.snapshot(), 20));
    }
    expect(looked).toBe(20_000);
    expect(s.scanned).toBe(20_000);
    expect(s.hits).toEqual(Array.from({ length: 20_000 }, (_, i) => i).filter((i) => String(i + 1).includes("7")));
  });

  test("takes a turn of the length that it is given", () => {
    const log = bufferOf(Array.from({ length: 25 }, (_, i) => record(i + 1))).snapshot();
    const s = new LogSearch("line", plain);
    expect([s.scan(log, 10), s.scanned]).toEqual([true, 10]);
    expect([s.scan(log, 10), s.scanned]).toEqual([true, 20]);
    expect([s.scan(log, 10), s.scanned]).toEqual([false, 25]);
    expect([s.scan(log, 10), s.scanned]).toEqual([false, 25]);
  });

  test.each([
    [[], 1, false],
    [[4], 4, true],
    [[1, 4, 9, 12], 1, true],
    [[1, 4, 9, 12], 9, true],
    [[1, 4, 9, 12], 12, true],
    [[1, 4, 9, 12], 0, false],
    [[1, 4, 9, 12], 5, false],
    [[1, 4, 9, 12], 13, false],
  ])("%j holds %j: %j", (rising, wanted, held) => expect(holds(rising, wanted)).toBe(held));
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

describe("what printed the lines", () => {
  const log = bufferOf([
    record(11),
    { ...record(12), stage: "BUILD", hook: "build" },
    { ...record(13), stage: "BUILD" },
    { ...record(14), stage: "BUILD", hook: "build" },
    { ...record(15), stage: "BUILD", hook: "" },
    { ...record(16), stage: "RELEASE", hook: "build" },
  ]).snapshot();
  const numbers = (list: LogRecord[]) => list.map((r) => r.line);

  test("a hook's lines are those it printed in its stage", () => {
    expect(log.span("BUILD", "build")).toEqual({ from: 12, to: 14 });
    expect(log.span("RELEASE", "build")).toEqual({ from: 16, to: 16 });
    expect(log.span("BUILD", "test")).toBeUndefined();
    expect(log.span("BUILD")).toEqual({ from: 12, to: 15 });
    expect(fragment({ from: 2, to: 3 })).toBe("#L2-L3");
    expect(fragment({ from: 4, to: 4 })).toBe("#L4");
  });

  test("the last lines are a hook's own, else the stage's, else the log's", () => {
    expect(numbers(log.tail(10, "BUILD", "build"))).toEqual([12, 14]);
    expect(numbers(log.tail(1, "BUILD", "build"))).toEqual([14]);
    expect(numbers(log.tail(2, "BUILD"))).toEqual([14, 15]);
    expect(numbers(log.tail(2, "BUILD", "test"))).toEqual([15, 16]);
    expect(numbers(log.tail(10, "SETUP"))).toEqual([11, 12, 13, 14, 15, 16]);
  });

  test("a short tail of a long log looks at no more than its lines", () => {
    const long = new LogBuffer();
    for (let line = 1; line <= 1_000; line++) long.add({ ...record(line), stage: "BUILD", hook: "build" });
    long.add({ ...record(1_001), stage: "RELEASE" });
    const lines = long.snapshot();
    const at = vi.spyOn(lines, "at");
    expect(numbers(lines.tail(3, "BUILD", "build"))).toEqual([998, 999, 1_000]);
    expect(at.mock.calls.length).toBeLessThan(10);
  });
});
