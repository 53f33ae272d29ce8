import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { connectResult, knownReason, remedyFor } from "../src/lib/remedy";

interface Document {
  components: { schemas: { Reason: { "x-reasons": { reason: string; status: number; retry: string }[] } } };
}
const document = JSON.parse(
  readFileSync(new URL("../../internal/openapi/openapi.json", import.meta.url), "utf8"),
) as Document;
const table = document.components.schemas.Reason["x-reasons"];

describe("remedies", () => {
  test("there is one for every reason that the API gives", () => {
    expect(table.length).toBeGreaterThan(50);
    expect(table.map((r) => r.reason).filter((r) => !knownReason(r))).toEqual([]);
  });

  test("what does not pass by itself is not answered with another try", () => {
    const lasting = table.filter((r) => r.retry === "never" && r.status < 500).map((r) => r.reason);
    expect(lasting).toContain("DELIVERY_NOT_FOUND");
    expect(lasting.filter((r) => /^Try again/.test(remedyFor(r).text))).toEqual([]);
  });

  test("what no push mends is not answered with a push", () => {
    const places: Record<string, RegExp> = {
      SUBMODULE_REFUSED: /Options/,
      DIRECTORY_NOT_FOUND: /Options/,
      NO_HOOK_RUNNER: /operator/,
      COMMIT_GONE: /Deploy latest/,
    };
    for (const [reason, place] of Object.entries(places)) {
      expect(knownReason(reason), reason).toBe(true);
      expect(remedyFor(reason).text).toMatch(place);
    }
  });

  test("an unknown reason still says what to do", () => {
    expect(remedyFor("BRAND_NEW").text).toMatch(/Try again/);
    expect(remedyFor(undefined).text).not.toBe("");
  });

  test("trouble with the connection leads to Integrations", () => {
    for (const reason of ["NOT_CONNECTED", "RECONNECT_REQUIRED", "SCOPE_MISSING"]) {
      expect(remedyFor(reason).action?.to("acme-inc")).toBe("/w/acme-inc/settings/integrations");
    }
  });

  test("sentences end as sentences do, without shouting", () => {
    for (const { reason } of table) expect(remedyFor(reason).text).toMatch(/^[A-Z].*[^!]\.$/);
  });
});

describe("what came back from a connect", () => {
  const of = (q: string) => connectResult(new URLSearchParams(q));
  test("is nothing without a result", () => expect(of("tab=x")).toBeUndefined());
  test("a cancel is no failure", () =>
    expect(of("bitbucket=failed&reason=CONSENT_DENIED")).toMatchObject({
      tone: "warn",
      title: "You cancelled on Bitbucket, so nothing was connected.",
    }));
  test("a stranger's reason is not repeated", () => {
    const r = of("bitbucket=failed&reason=%3Cb%3Eevil");
    expect(r?.tone).toBe("bad");
    expect(`${r?.title} ${r?.text}`).not.toContain("evil");
  });
});
