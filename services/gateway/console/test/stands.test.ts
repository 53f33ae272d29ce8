import { expect, test } from "vitest";
import type { App, Integration } from "../src/api/client";
import { refused, troubleOf } from "../src/lib/trouble";
import { aheadText, appLook, behindText, byNeed, needOf, reasonText, syncLook } from "../src/lib/words";

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
  expect(word({ state: "BEHIND", reason: "DELIVERY_AWAITED" })).toBe("Pushed");
  expect(word({ state: "ROLLED_BACK" })).toBe("Rolled back");
  expect(word({ state: "UNKNOWN" })).toBe("Not known");
  expect(word({ state: "AHEAD_OF_IT" })).toBe("Ahead of it");
  expect(syncLook(undefined).word).toBe("Unknown");
});

test("how far a branch is from what is live, where somebody has counted", () => {
  const texts = (sync: object) => [behindText(sync as App["sync"]), aheadText(sync as App["sync"])];
  expect(texts({ state: "BEHIND", diverged: false })).toEqual(["", ""]);
  expect(texts({ state: "BEHIND", diverged: false, commits: 1 })).toEqual([
    "1 commit behind",
    "1 commit ahead of what is live",
  ]);
  expect(texts({ state: "BEHIND", diverged: false, commits: 25 })).toEqual([
    "25 commits behind",
    "25 commits ahead of what is live",
  ]);
  expect(texts({ state: "BEHIND", diverged: false, commits: 2, branches: 1 })[0]).toBe("2 commits behind");
  // The commits are those of one of them.
  expect(texts({ state: "BEHIND", diverged: false, commits: 2, branches: 3 })[0]).toBe("3 branches behind");
  expect(texts({ state: "BEHIND", diverged: true })).toEqual(["Diverged", "which does not contain what is live"]);
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
    webhook: {
      id: "w1",
      state: "ACTIVE",
      health: "DELIVERIES_MISSING",
      healthMessage: "No delivery.",
      repairable: true,
    },
  });
  expect(troubleOf(i("CONNECTED"), [lossy])).toMatchObject({ text: "No delivery.", webhooks: ["w1"] });
  expect(troubleOf(i("CONNECTED"), [hooked])?.webhooks).toEqual([]);
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

test("several repositories of which the account is no admin are told of in one sentence, and Repair is not offered", () => {
  const connected = { state: "CONNECTED", account: { label: "jane-dev" } } as unknown as Integration;
  const hook = (id: string, over: object) => ({ webhook: { id, state: "ACTIVE", foundWithin: "93s", ...over } });
  const never = { state: "NOT_REGISTERED", reason: "NOT_REPOSITORY_ADMIN", message: "said" };
  const noMore = { health: "NOT_ADMIN", healthMessage: "said" };
  const two = [app("a", hook("w1", never)), app("b", hook("w2", noMore))];
  expect(troubleOf(connected, two)).toMatchObject({
    title: "The connected account jane-dev is not an admin of the repositories of 2 apps: a, b.",
    text: "An admin of them gives it that right on Bitbucket, or adds the webhooks by hand. Their pushes are found by polling, within about 2 minutes.",
    webhooks: [],
    action: "Open Integrations",
  });
  const off = app("c", hook("w3", { health: "INACTIVE", healthMessage: "Switched off.", repairable: true }));
  expect(troubleOf(connected, [...two, off])).toMatchObject({
    title: "3 apps have no working webhook: a, b, c.",
    text: "The connected account jane-dev is not an admin of the repositories of a, b. An admin of them gives it that right on Bitbucket, or adds the webhooks by hand. The other app says why. Their pushes are found by polling, within about 2 minutes.",
    webhooks: ["w3"],
  });
  expect(troubleOf(connected, [off, { ...off, id: "d" }])).toMatchObject({
    title: "2 apps have no working webhook: c, d.",
    text: "Their pushes are found by polling, within about 2 minutes. Each app says why.",
    webhooks: ["w3"],
  });
});

test("a row says the newest deployment's state where it needs somebody, and why in few words", () => {
  const word = (over: object) => appLook(app("a", over)).word;
  expect(word({})).toBe("In sync");
  expect(word({ ...behind("DEPLOYMENT_FAILED"), latest: { state: "FAILED" } })).toBe("Failed");
  expect(word({ latest: { state: "FAILED" } })).toBe("Failed"); // also where the branch is in sync all the same
  expect(word({ latest: { state: "PROCESSING" } })).toBe("Deploying");
  expect(word({ ...behind("SERVER_OFFLINE"), latest: { state: "PENDING" } })).toBe("Waiting");
  expect(word({ ...behind("DECIDING") })).toBe("Being decided");
  expect(word({ sync: { state: "UNKNOWN" }, latest: undefined, live: undefined })).toBe("Not deployed");
  expect(word({ sync: { state: "UNKNOWN" } })).toBe("Not known");
  const why = (message: string, state = "BEHIND") => reasonText(app("a", { sync: { state, message } }));
  expect(
    why('Deployment #3 of it failed: Hook "build" of POST_SOURCE_CONTROL failed: it ended with exit code 3.'),
  ).toBe("Hook build, exit 3");
  expect(why("Deployment #3 of it failed: acme/web is not there.")).toBe("acme/web is not there.");
  expect(why("Auto-deploy is off.")).toBe("Auto-deploy is off.");
  expect(why("All is well.", "IN_SYNC")).toBe("");
});
