import { expect, test } from "vitest";
import type { DeletionPreview } from "../src/api/client";
import { goesWith, sameName } from "../src/lib/deletion";

const nothing: DeletionPreview = {
  workspace: "acme",
  etag: "1",
  apps: [],
  appsCount: 0,
  deploymentsRunning: 0,
  webhooks: [],
  apiKeys: 0,
  members: 1,
  invitations: 0,
  notificationTargets: 0,
  unknown: [],
};

test("an empty workspace takes nothing but the membership", () => {
  expect(goesWith(nothing)).toEqual(["Your own membership: you are the only member"]);
});

test("what goes is counted, apps by name, and a webhook that stays is not among what goes", () => {
  const apps = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map((id) => ({
    id,
    repositoryFullName: `acme/${id}`,
  }));
  expect(
    goesWith({
      ...nothing,
      apps: apps.map((a, i) => (i < 2 ? { ...a, url: `http://${a.id}.localhost` } : a)),
      appsCount: 12,
      deploymentsRunning: 1,
      account: "jane-dev",
      webhooks: [
        { repositoryFullName: "acme/a" },
        { repositoryFullName: "acme/b" },
        { repositoryFullName: "acme/c", stays: "The connected account is not an admin of the repository." },
      ],
      members: 3,
      invitations: 1,
      apiKeys: 2,
      notificationTargets: 1,
    }),
  ).toEqual([
    "12 apps with releases and history: a, b, c, d, e, f, g, h and 4 more",
    "2 or more sites that are live",
    "One deployment that runs or waits: it is cancelled",
    "The connection to Bitbucket as @jane-dev, with its tokens",
    "2 webhooks at Bitbucket",
    "3 members, you among them, lose it at once",
    "One open invitation",
    "2 API keys",
    "One notification target",
  ]);
  expect(goesWith({ ...nothing, apps: apps.slice(0, 1), appsCount: 1 })[0]).toBe(
    "One app with releases and history: a",
  );
});

test("a name is the same however its spaces and accents were typed, and not otherwise", () => {
  expect(sameName("  Café   du Nord ", "Cafe\u0301 du Nord")).toBe(true);
  expect(sameName("cafe du nord", "Café du Nord")).toBe(false);
  expect(sameName("", "Acme")).toBe(false);
});
