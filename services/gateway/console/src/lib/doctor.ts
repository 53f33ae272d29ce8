// What the doctor's page says of a report.
import type { DoctorCheck, DoctorReport } from "../api/client";
import type { Look } from "./words";

const looks: Record<string, Look> = {
  OK: { word: "Well", tone: "good", mark: "done" },
  WARNING: { word: "Warning", tone: "warn", mark: "alert" },
  FAILED: { word: "Failed", tone: "bad", mark: "failed" },
  SKIPPED: { word: "Not asked", tone: "idle", mark: "skipped" },
  RUNNING: { word: "Being asked", tone: "busy", mark: "running" },
};

/** How a state looks; one of a newer server reads as it is called. */
export const stateLook = (state: string): Look => looks[state] ?? { word: state, tone: "idle", mark: "unknown" };

const names: Record<string, string> = {
  service: "Answers",
  nats: "NATS",
  "nats-sync": "NATS: on the disk",
  "nats-storage": "NATS: room",
  "nats-replicas": "NATS: replicas",
  "nats-permissions": "NATS: permissions",
  redis: "Redis",
  "redis-eviction": "Redis: when it is full",
  keyset: "Keyset",
  "identity-keys": "Identity keys",
  clock: "Clock",
  "public-url": "Public URL",
  "oauth-consumer": "OAuth consumer",
  "webhook-delivery": "Deliveries from outside",
  git: "git",
  sandbox: "Sandbox of hooks",
  disk: "Disk",
  worker: "Worker",
};

/** What a check is called on the page. */
export const checkName = (name: string): string => names[name] ?? name;

export interface Group {
  service: string;
  checks: DoctorCheck[];
}

/** The checks by the service that answered for them, in the order in which they come. */
export function byService(report: DoctorReport): Group[] {
  const groups: Group[] = [];
  for (const check of report.checks) {
    const last = groups.find((g) => g.service === check.service);
    if (last === undefined) groups.push({ service: check.service, checks: [check] });
    else last.checks.push(check);
  }
  return groups;
}

/** What the whole comes to, in a sentence. */
export function verdict(report: DoctorReport): string {
  const { failed, warnings, skipped } = report;
  if (report.running) {
    const asked = byService(report);
    const answered = asked.filter((g) => g.checks.every((c) => c.state !== "RUNNING")).length;
    return `${answered} of ${asked.length} services have answered.`;
  }
  const parts = [
    failed > 0 && `${failed} of ${report.checks.length} checks failed`,
    warnings > 0 && `${warnings} ${warnings === 1 ? "has" : "have"} a warning`,
  ].filter((s) => s !== false);
  const rest = skipped > 0 ? ` ${skipped} ${skipped === 1 ? "was" : "were"} not asked.` : "";
  return (parts.length === 0 ? "All that was asked is well." : `${parts.join(", ")}.`) + rest;
}
