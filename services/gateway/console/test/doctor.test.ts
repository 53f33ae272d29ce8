import { expect, test } from "vitest";
import type { DoctorCheck, DoctorReport } from "../src/api/client";
import { byService, checkName, stateLook, verdict } from "../src/lib/doctor";

const one = (service: string, state: DoctorCheck["state"], name = "service"): DoctorCheck => ({
  name,
  service,
  state,
  found: "It is.",
  time: "2026-11-30T12:00:00Z",
  durationMillis: 1,
});

function report(checks: DoctorCheck[], more: Partial<DoctorReport> = {}): DoctorReport {
  const count = (state: string) => checks.filter((c) => c.state === state).length;
  return {
    program: "devpilot",
    version: "v1",
    state: "OK",
    ok: count("OK"),
    warnings: count("WARNING"),
    failed: count("FAILED"),
    skipped: count("SKIPPED"),
    checks,
    running: false,
    ...more,
  };
}

test("checks are read by service, in their order", () => {
  const r = report([one("auth", "OK"), one("repo", "OK"), one("auth", "OK", "nats"), one("auth", "OK", "redis")]);
  expect(byService(r).map((g) => [g.service, g.checks.map((c) => c.name)])).toEqual([
    ["auth", ["service", "nats", "redis"]],
    ["repo", ["service"]],
  ]);
});

test("a sentence says what it comes to", () => {
  expect(verdict(report([one("auth", "OK")]))).toBe("All that was asked is well.");
  expect(verdict(report([one("auth", "OK"), one("auth", "SKIPPED")]))).toBe(
    "All that was asked is well. 1 was not asked.",
  );
  expect(
    verdict(report([one("auth", "FAILED"), one("repo", "WARNING"), one("repo", "WARNING"), one("repo", "OK")])),
  ).toBe("1 of 4 checks failed, 2 have a warning.");
  expect(verdict(report([one("auth", "WARNING")]))).toBe("1 has a warning.");
  expect(verdict(report([one("auth", "OK"), one("repo", "RUNNING")], { running: true }))).toBe(
    "1 of 2 services have answered.",
  );
});

test("what a newer server says is shown as it is called", () => {
  expect(checkName("nats")).toBe("NATS");
  expect(checkName("something-new")).toBe("something-new");
  expect(stateLook("SKIPPED").word).toBe("Not asked");
  expect(stateLook("PARTLY")).toEqual({ word: "PARTLY", tone: "idle", mark: "unknown" });
});
