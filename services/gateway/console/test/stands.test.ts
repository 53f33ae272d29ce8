import { expect, test } from "vitest";
import type { App, AppsTrouble, Integration } from "../src/api/client";
import { refused, troubleOf } from "../src/lib/trouble";
import { aheadText, appLook, behindText, reasonText, syncLook } from "../src/lib/words";

const app = (id: string, over: object = {}): App =>
  ({
    id,
    autoDeploy: true,
    warnings: [],
    need: "IN_SYNC",
    sync: { state: "IN_SYNC" },
    latest: { state: "COMPLETED" },
    ...over,
  }) as unknown as App;
/** Apps whose pushes no delivery tells of. */
const unhooked = (first: string[], over: object): AppsTrouble[] => [
  {
    kind: "WEBHOOK",
    apps: first.length,
    first,
    webhooks: [],
    notAdmin: 0,
    firstNotAdmin: [],
    foundWithin: "93s",
    ...over,
  } as unknown as AppsTrouble,
];
const behind = (reason: string) => ({ sync: { state: "BEHIND", reason, message: "said" } });

test("one word for how a branch stands; a word of a newer service is shown as it is", () => {
  const word = (sync: object) => syncLook(sync as App["sync"]).word;
  expect(word({ state: "IN_SYNC" })).toBe("In sync");
  expect(word({ state: "BEHIND", reason: "AUTO_DEPLOY_OFF" })).toBe("Behind");
  expect(word({ state: "BEHIND", reason: "DEPLOYMENT_FAILED" })).toBe("Failed");
  expect(word({ state: "BEHIND", reason: "DEPLOYING" })).toBe("Deploying");
  expect(word({ state: "BEHIND", reason: "DELIVERY_AWAITED" })).toBe("Pushed");
  expect(word({ state: "ROLLED_BACK" })).toBe("Rolled back");
  expect(word({ state: "CHOSEN", reason: "TAG_CHOSEN" })).toBe("Chosen");
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
  const hooked = unhooked(["web"], { webhook: { state: "NOT_REGISTERED", message: "Not an admin." } });
  expect(troubleOf(i("CONNECTED"), 1, [])).toBeUndefined();
  expect(troubleOf(undefined, 0, [])).toBeUndefined();
  expect(troubleOf(i("NOT_CONNECTED"), 0, [])).toBeUndefined();
  expect(troubleOf(i("NOT_CONNECTED"), 1, [])?.action).toBe("Connect");
  expect(troubleOf(i("RECONNECT_REQUIRED", "RECONNECT_REQUIRED"), 1, hooked)?.action).toBe("Reconnect");
  expect(troubleOf(i("REFRESH_FAILING", "TOKEN_EXPIRED"), 0, [])?.action).toBe("Reconnect");
  const away = troubleOf(i("REFRESH_FAILING", "BITBUCKET_UNAVAILABLE"), 1, hooked);
  expect([away?.action, away?.text]).toEqual(["Open Integrations", "The service's words."]);
  expect(troubleOf(i("CONNECTED"), 2, hooked)).toMatchObject({
    title: "web has no working webhook.",
    text: "Not an admin. Their pushes are found by polling, within about 2 minutes.",
    action: "Open web",
    webhooks: [],
  });
  const webhook = { state: "ACTIVE", health: "DELIVERIES_MISSING", healthMessage: "No delivery." };
  const lossy = unhooked(["web"], { webhook, webhooks: ["w1"] });
  expect(troubleOf(i("CONNECTED"), 1, lossy)).toMatchObject({ text: "No delivery.", webhooks: ["w1"] });
  const many = unhooked(["a", "b", "c", "d", "e"], { apps: 40, webhook, webhooks: ["w1"] });
  expect(troubleOf(i("CONNECTED"), 1000, many)).toMatchObject({
    title: "40 apps have no working webhook: a, b, c, d, e and 35 more.",
    text: "Their pushes are found by polling, within about 2 minutes. Each app says why.",
    webhooks: ["w1"],
  });
  expect(refused(i("REFRESH_FAILING", "BITBUCKET_RATE_LIMITED"))).toBe(false);
  expect(refused(i("CONNECTED", "TOKEN_EXPIRED"))).toBe(false);
});

test("several apps that lost access are told of in one sentence", () => {
  const connected = { state: "CONNECTED", account: { label: "jane-dev" } } as unknown as Integration;
  const lost = (kind: string, apps: number, first: string[]): AppsTrouble[] => [
    { kind, apps, first, webhooks: [] } as unknown as AppsTrouble,
  ];
  expect(troubleOf(connected, 9, lost("REPOSITORY_UNREACHED", 7, ["a", "b", "c", "d", "e"]))?.title).toBe(
    "The connected account jane-dev cannot reach the repositories of 7 apps: a, b, c, d, e and 2 more.",
  );
  expect(troubleOf(connected, 9, lost("REPOSITORY_UNREACHED", 1, ["a"]))).toBeUndefined();
  expect(troubleOf(connected, 9, lost("WORKSPACE_EXCLUDED", 2, ["a", "b"]))?.title).toBe(
    "2 apps do not deploy, because an admin narrowed this workspace: a, b.",
  );
});

test("several repositories of which the account is no admin are told of in one sentence, and Repair is not offered", () => {
  const connected = { state: "CONNECTED", account: { label: "jane-dev" } } as unknown as Integration;
  const two = { notAdmin: 2, firstNotAdmin: ["a", "b"] };
  expect(troubleOf(connected, 2, unhooked(["a", "b"], two))).toMatchObject({
    title: "The connected account jane-dev is not an admin of the repositories of 2 apps: a, b.",
    text: "An admin of them gives it that right on Bitbucket, or adds the webhooks by hand. Their pushes are found by polling, within about 2 minutes.",
    webhooks: [],
    action: "Open Integrations",
  });
  expect(troubleOf(connected, 3, unhooked(["a", "b", "c"], { ...two, webhooks: ["w3"] }))).toMatchObject({
    title: "3 apps have no working webhook: a, b, c.",
    text: "The connected account jane-dev is not an admin of the repositories of a, b. An admin of them gives it that right on Bitbucket, or adds the webhooks by hand. The other app says why. Their pushes are found by polling, within about 2 minutes.",
    webhooks: ["w3"],
  });
  expect(troubleOf(connected, 2, unhooked(["c", "d"], { webhooks: ["w3"] }))).toMatchObject({
    title: "2 apps have no working webhook: c, d.",
    text: "Their pushes are found by polling, within about 2 minutes. Each app says why.",
    webhooks: ["w3"],
  });
  const nine = { apps: 9, notAdmin: 9, firstNotAdmin: ["a", "b", "c", "d", "e"] };
  expect(troubleOf(connected, 9, unhooked(["a", "b", "c", "d", "e"], nine))?.title).toBe(
    "The connected account jane-dev is not an admin of the repositories of 9 apps: a, b, c, d, e and 4 more.",
  );
});

test("a row says the newest deployment's state where it needs somebody, and why in few words", () => {
  const word = (over: object) => appLook(app("a", over)).word;
  expect(word({})).toBe("In sync");
  expect(word({ need: "FAILING", ...behind("DEPLOYMENT_FAILED"), latest: { state: "FAILED" } })).toBe("Failed");
  expect(word({ need: "FAILING", latest: { state: "FAILED" } })).toBe("Failed"); // also where the branch is in sync all the same
  expect(word({ need: "DEPLOYING", latest: { state: "PROCESSING" } })).toBe("Deploying");
  expect(word({ need: "WAITING", ...behind("SERVER_OFFLINE"), latest: { state: "PENDING" } })).toBe("Waiting");
  expect(word({ need: "DEPLOYING", ...behind("DECIDING") })).toBe("Being decided");
  expect(word({ need: "NOT_KNOWN", sync: { state: "UNKNOWN" }, latest: undefined, live: undefined })).toBe(
    "Not deployed",
  );
  expect(word({ need: "NOT_KNOWN", sync: { state: "UNKNOWN" } })).toBe("Not known");
  const why = (message: string, state = "BEHIND") => reasonText(app("a", { sync: { state, message } }));
  expect(
    why('Deployment #3 of it failed: Hook "build" of POST_SOURCE_CONTROL failed: it ended with exit code 3.'),
  ).toBe("Hook build, exit 3");
  expect(why("Deployment #3 of it failed: acme/web is not there.")).toBe("acme/web is not there.");
  expect(why("Auto-deploy is off.")).toBe("Auto-deploy is off.");
  expect(why("All is well.", "IN_SYNC")).toBe("");
});
