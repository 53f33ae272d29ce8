import { expect, test } from "vitest";
import { parts, toMe } from "../src/lib/said";

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

test("what the reader did is said to the reader, and nobody else's doing is", () => {
  const me = "Local owner";
  for (const [said, shown] of [
    [
      "Local owner made 0123456 live again in deployment #3; main is at 1234567.",
      "You made 0123456 live again in deployment #3; main is at 1234567.",
    ],
    [
      "Auto-deploy is off: Local owner switched it off. Switch it on.",
      "Auto-deploy is off: you switched it off. Switch it on.",
    ],
    ["It ended. Local owner cancelled deployment #2 of it.", "It ended. You cancelled deployment #2 of it."],
    [
      "Auto-deploy is off: Second Local owner's key switched it off.",
      "Auto-deploy is off: Second Local owner's key switched it off.",
    ],
    ["Ada switched it off.", "Ada switched it off."],
    ["Ask Local owner.", "Ask Local owner."],
    ["xLocal owner switched it off.", "xLocal owner switched it off."],
  ] as const)
    expect(toMe(said, me)).toBe(shown);
  expect(toMe("a.b (c) switched it off. A+b switched it on.", "a.b (c)")).toBe(
    "You switched it off. A+b switched it on.",
  );
  expect(toMe("Somebody switched it off.", "")).toBe("Somebody switched it off.");
});
