// Where the palette leads: pages, apps, deployments by number, other workspaces.
import type { Me } from "../api/client";

export interface Place {
  id: string;
  name: string;
  /** What it is, in a word or two. */
  kind: string;
  to: string;
}

/** What a repository or an app is known by. */
interface Named {
  id: string;
  repositoryFullName?: string;
  branch?: string;
}

const pages = [
  ["Apps", "apps"],
  ["New app", "apps/new"],
  ["Why did it not deploy?", "why"],
  ["Activity", "activity"],
  ["Integrations", "settings/integrations"],
  ["Notifications", "settings/notifications"],
  ["Members", "settings/members"],
  ["Workspaces", "settings/workspaces"],
  ["API keys", "settings/api-keys"],
  ["Sessions", "settings/sessions"],
] as const;

/** "web 12", "web #12": a deployment of an app. */
const numbered = /^(.*?)\s*#?(\d{1,9})$/;

/** What of a query names the app of a deployment, and the deployment's number; "" and 0 where it names none. */
export function ofDeployment(query: string): [name: string, number: number] {
  const m = numbered.exec(query.trim().toLowerCase());
  return m === null ? ["", 0] : [m[1] ?? "", Number(m[2])];
}

/**
 * The places that a query names, the likeliest first: those whose name begins with it before those
 * that hold it somewhere, of several words each, in the order in which they come. An empty query names all pages,
 * then all apps.
 */
export function places(query: string, ws: string, apps: readonly Named[], workspaces: Me["workspaces"]): Place[] {
  const q = query.trim().toLowerCase();
  const all: (Place & { words: string })[] = [
    ...pages.map(([name, path]) => ({ id: `page ${path}`, name, kind: "Page", to: `/w/${ws}/${path}`, words: name })),
    ...apps.map((a) => ({
      id: `app ${a.id}`,
      name: a.id,
      kind: [a.repositoryFullName, a.branch].filter((s) => s !== undefined && s !== "").join(" · "),
      to: `/w/${ws}/apps/${a.id}`,
      words: `${a.id} ${a.repositoryFullName ?? ""} ${a.branch ?? ""}`,
    })),
    ...workspaces
      .filter((w) => w.id !== ws)
      .map((w) => ({
        id: `workspace ${w.id}`,
        name: w.displayName,
        kind: "Workspace",
        to: `/w/${w.id}/apps`,
        words: `${w.displayName} ${w.id}`,
      })),
  ];
  const parts = q.split(/\s+/);
  const held = all.filter((p) => parts.every((part) => p.words.toLowerCase().includes(part)));
  const begins = held.filter((p) => p.words.toLowerCase().startsWith(q));
  const holds = held.filter((p) => !begins.includes(p));
  const found: Place[] = [...begins, ...holds].map(({ id, name, kind, to }) => ({ id, name, kind, to }));
  const [name, number] = ofDeployment(q);
  if (number === 0) return found;
  const deployments = apps
    .filter((a) => a.id.includes(name))
    .toSorted((a, b) => Number(b.id === name) - Number(a.id === name))
    .map((a) => ({
      id: `deployment ${a.id} ${number}`,
      name: `${a.id} #${number}`,
      kind: "Deployment",
      to: `/w/${ws}/apps/${a.id}/deployments/${number}`,
    }));
  // "web2" is an app's name first, and "2" of web only then.
  return [...found, ...deployments];
}
