import { expect, test } from "vitest";
import type { App, Integration } from "../src/api/client";
import { refused, troubleOf } from "../src/lib/trouble";
import { byNeed, needOf, syncLook } from "../src/lib/words";

const app = (id: string, over: object = {}): App =>
  ({
    id,
    autoDeploy: true,
    warnings: [],
    sync: { state: "IN_SYNC" },
    latest: { state: "COMPLETED" },
    ...over,
  }) as unknown as App;
const behind = (reason: string) => ({ sync: { state: "BEHIND", reason, message: "said" } });

test("what needs somebody comes first", () => {
  const apps = [
    app("a"),
    app("b", { sync: { state: "UNKNOWN" } }),
    app("c", { sync: { state: "ROLLED_BACK", reason: "OLDER_RELEASE" } }),
    app("d", { ...behind("DEPLOYING"), latest: { state: "PROCESSING" } }),
    app("e", behind("AUTO_DEPLOY_OFF")),
    app("f", { ...behind("SERVER_OFFLINE"), latest: { state: "PENDING" } }),
    app("g", { ...behind("DEPLOYMENT_FAILED"), latest: { state: "FAILED" } }),
    app("h", behind("NOT_DEPLOYED")),
    app("i", { ...behind("WAITING"), latest: { state: "PENDING" } }),
    app("j", { sync: { state: "BEHIND", reason: "SKIP_PHRASE" } }),
  ];
  expect(byNeed(apps).map((a) => `${a.id} ${needOf(a)}`)).toEqual([
    "g failing",
    "f waiting",
    "e behind",
    "h behind",
    "j behind",
    "d deploying",
    "i deploying",
    "c rolled-back",
    "b unknown",
    "a in-sync",
  ]);
});

test("one word for how a branch stands; a word of a newer service is shown as it is", () => {
  const word = (sync: object) => syncLook(sync as App["sync"]).word;
  expect(word({ state: "IN_SYNC" })).toBe("In sync");
  expect(word({ state: "BEHIND", reason: "AUTO_DEPLOY_OFF" })).toBe("Behind");
  expect(word({ state: "BEHIND", reason: "DEPLOYMENT_FAILED" })).toBe("Failed");
  expect(word({ state: "BEHIND", reason: "DEPLOYING" })).toBe("Deploying");
  expect(word({ state: "ROLLED_BACK" })).toBe("Rolled back");
  expect(word({ state: "UNKNOWN" })).toBe("Not known");
  expect(word({ state: "AHEAD_OF_IT" })).toBe("Ahead of it");
  expect(syncLook(undefined).word).toBe("Unknown");
});

test("a workspace has one trouble at most, the most urgent, with the button that mends it", () => {
  const i = (state: string, reason?: string) =>
    ({
      state,
      lastError: reason === undefined ? undefined : { reason, message: "The service's words." },
    }) as Integration;
  const hooked = app("web", { webhook: { state: "NOT_REGISTERED", message: "Not an admin.", foundWithin: "93s" } });
  expect(troubleOf(i("CONNECTED"), [app("web")])).toBeUndefined();
  expect(troubleOf(undefined, [])).toBeUndefined();
  expect(troubleOf(i("NOT_CONNECTED"), [])).toBeUndefined();
  expect(troubleOf(i("NOT_CONNECTED"), [app("web")])?.action).toBe("Connect");
  expect(troubleOf(i("RECONNECT_REQUIRED", "RECONNECT_REQUIRED"), [hooked])?.action).toBe("Reconnect");
  expect(troubleOf(i("REFRESH_FAILING", "TOKEN_EXPIRED"), [])?.action).toBe("Reconnect");
  const away = troubleOf(i("REFRESH_FAILING", "BITBUCKET_UNAVAILABLE"), [hooked]);
  expect([away?.action, away?.text]).toEqual(["Open Integrations", "The service's words."]);
  expect(troubleOf(i("CONNECTED"), [hooked, app("docs")])).toMatchObject({
    title: "web has no working webhook.",
    text: "Not an admin. Their pushes are found by polling, within about 2 minutes.",
    action: "Open web",
  });
  expect(
    troubleOf(i("CONNECTED"), [app("web", { autoDeploy: false, webhook: { state: "NOT_REGISTERED" } })]),
  ).toBeUndefined();
  const lossy = app("web", {
    webhook: { id: "w1", state: "ACTIVE", health: "DELIVERIES_MISSING", healthMessage: "No delivery." },
  });
  expect(troubleOf(i("CONNECTED"), [lossy])).toMatchObject({ text: "No delivery.", webhooks: ["w1"] });
  expect(
    troubleOf(i("CONNECTED"), [app("web", { webhook: { id: "w1", state: "ACTIVE", health: "REGISTERED" } })]),
  ).toBeUndefined();
  expect(refused(i("REFRESH_FAILING", "BITBUCKET_RATE_LIMITED"))).toBe(false);
  expect(refused(i("CONNECTED", "TOKEN_EXPIRED"))).toBe(false);
});

test("several apps that lost access are told of in one sentence", () => {
  const lost = (reason: string) => ({ warnings: [{ reason, message: "said" }] });
  const connected = { state: "CONNECTED", account: { label: "jane-dev" } } as unknown as Integration;
  const many = ["a", "b", "c", "d", "e", "f", "g"].map((id) => app(id, lost("REPOSITORY_NOT_FOUND")));
  expect(troubleOf(connected, many)?.title).toBe(
    "The connected account jane-dev cannot reach the repositories of 7 apps: a, b, c, d, e and 2 more.",
  );
  expect(troubleOf(connected, many.slice(0, 1))).toBeUndefined();
  const narrowed = many.slice(0, 2).map((a) => app(a.id, lost("BITBUCKET_WORKSPACE_EXCLUDED")));
  expect(troubleOf(connected, narrowed)?.title).toBe(
    "2 apps do not deploy, because an admin narrowed this workspace: a, b.",
  );
});
