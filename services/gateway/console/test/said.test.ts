import { expect, test } from "vitest";
import { parts } from "../src/lib/said";

test("the times of a sentence are found, and nothing else is taken for one", () => {
  expect(parts("Refused twice (2026-11-22 13:02 UTC, 2026-11-22 13:09:05 UTC).")).toEqual([
    { text: "Refused twice (" },
    { at: "2026-11-22T13:02Z" },
    { text: ", " },
    { at: "2026-11-22T13:09:05Z" },
    { text: ")." },
  ]);
  for (const plain of ["", "At 13:02 UTC", "2026-13-41 13:02 UTC", "2026-11-22 13:02", "x2026-11-22 13:02 UTC"])
    expect(parts(plain), plain).toEqual(plain === "" ? [] : [{ text: plain }]);
});
