import { expect, test } from "vitest";
import { merged } from "../src/lib/draft";

test("a draft follows what its writer did not touch, and keeps what was touched", () => {
  const base = { branch: "main", auto: true, keep: "5" };
  const draft = { ...base, keep: "9" };
  expect(merged(base, draft, { ...base, auto: false })).toEqual({
    base: { ...base, auto: false },
    draft: { branch: "main", auto: false, keep: "9" },
  });
  // Both changed the same: the base stays behind, which tells it.
  expect(merged(base, draft, { ...base, keep: "4" })).toEqual({ base, draft });
  // Both made it the same: agreed.
  expect(merged(base, draft, draft)).toEqual({ base: draft, draft });
  // What came or went is followed too, a list is one thing.
  expect(merged<object>({ a: [1] }, { a: [1], b: 1 }, { a: [1, 2] })).toEqual({
    base: { a: [1, 2] },
    draft: { a: [1, 2], b: 1 },
  });
  expect(merged<object>({ a: [1] }, { a: [1] }, {}).draft).toEqual({});
});

test("a text alone is one field", () => {
  expect(merged("a", "a", "b")).toEqual({ base: "b", draft: "b" });
  expect(merged("a", "c", "b")).toEqual({ base: "a", draft: "c" });
  expect(merged("a", "b", "b")).toEqual({ base: "b", draft: "b" });
});
