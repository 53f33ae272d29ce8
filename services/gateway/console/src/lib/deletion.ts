// What goes with a workspace, in lines for people.
import type { DeletionPreview } from "../api/client";

/** How many apps are called by their names. */
const named = 8;

const count = (n: number, one: string, many: string) => (n === 0 ? [] : [n === 1 ? one : `${n} ${many}`]);

/** A line for each kind of thing that goes; what is not there has none. */
export function goesWith(p: DeletionPreview): string[] {
  const names = p.apps.slice(0, named).map((a) => a.id);
  const more = p.appsCount - names.length;
  const apps = names.length === 0 ? "" : `: ${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
  const live = p.apps.filter((a) => a.url !== undefined).length;
  const removed = p.webhooks.filter((h) => h.stays === undefined).length;
  return [
    ...count(p.appsCount, "One app", "apps").map((n) => `${n} with releases and history${apps}`),
    ...count(
      live,
      "One site that is live",
      p.appsCount > p.apps.length ? "or more sites that are live" : "sites that are live",
    ),
    ...count(
      p.deploymentsRunning,
      "One deployment that runs or waits: it is cancelled",
      "deployments that run or wait: they are cancelled",
    ),
    ...(p.account === undefined ? [] : [`The connection to Bitbucket as @${p.account}, with its tokens`]),
    ...count(removed, "One webhook at Bitbucket", "webhooks at Bitbucket"),
    ...count(p.members, "Your own membership: you are the only member", "members, you among them, lose it at once"),
    ...count(p.invitations, "One open invitation", "open invitations"),
    ...count(p.apiKeys, "One API key", "API keys"),
    ...count(p.notificationTargets, "One notification target", "notification targets"),
  ];
}

/** Whether what was typed is the name, however its spaces and accents were put in. */
export function sameName(typed: string, name: string): boolean {
  const plain = (s: string) => s.normalize("NFC").replace(/\s+/g, " ").trim();
  return plain(typed) === plain(name);
}
