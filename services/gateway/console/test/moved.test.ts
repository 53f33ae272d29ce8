import { expect, test } from "vitest";
import { triggerText } from "../src/lib/words";

test("a deployment that was made because a server died says so", () => {
  expect(triggerText({ trigger: "MOVED", actor: { kind: "SYSTEM", label: "Devpilot" }, sourceNumber: 4 })).toBe(
    "Moved to another server: #4 again",
  );
});
