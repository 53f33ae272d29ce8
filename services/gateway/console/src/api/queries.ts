import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { api, body, type Branch, type Webhook } from "./client";
import { learn } from "../lib/clock";
import type { LogRecord } from "../lib/log";
import { matcher, patternPrefix } from "../lib/pattern";
import type { Question } from "../lib/why";

// Keys begin with the workspace and the kind, so that a change event finds what to load again.
export const keys = {
  kind: (ws: string, kind: string) => ["ws", ws, kind] as const,
  workspace: (ws: string) => ["ws", ws] as const,
};

export const meQuery = queryOptions({
  queryKey: ["me"],
  queryFn: async ({ signal }) => body(await api.GET("/v1/me", { signal })),
  staleTime: 5 * 60_000,
});

export const infoQuery = queryOptions({
  queryKey: ["info"],
  queryFn: async ({ signal }) => {
    const sent = Date.now();
    const info = body(await api.GET("/v1/info", { signal }));
    if (info.time !== undefined) learn(Date.parse(info.time), 0, sent, Date.now());
    return info;
  },
  staleTime: 10 * 60_000,
});

/** How the installation was when its services were last asked, or how far they are. For its operators. */
export const doctorQuery = queryOptions({
  queryKey: ["doctor"],
  queryFn: async ({ signal }) => body(await api.GET("/v1/doctor", { signal })),
  staleTime: 0,
});

export const integrationQuery = (workspace: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "integration")],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/integrations/bitbucket", { params: { path: { workspace } }, signal }),
      ),
  });

/** Why something did or did not deploy. It is asked anew each time: what stood in the way may be gone. */
export const whyQuery = (workspace: string, q: Question) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "why"), q],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/why", {
          params: {
            path: { workspace },
            query: {
              ...(q.about === "deployment" ? { deployment: Number(q.value) } : { [q.about]: q.value }),
              ...(q.app === "" ? {} : { app: q.app }),
            },
          },
          signal,
        }),
      ),
    staleTime: 0,
    retry: false,
  });

/** What is on all pages of a list, from the first to the last. */
async function allPages<P extends { nextPageToken?: string }, T>(
  ask: (pageToken: string) => Promise<P>,
  items: (page: P) => T[],
): Promise<T[]> {
  const all: T[] = [];
  for (let pageToken = ""; ;) {
    const got = await ask(pageToken);
    all.push(...items(got));
    pageToken = got.nextPageToken ?? "";
    if (pageToken === "") return all;
  }
}

/** Everybody in the workspace: a team is at most 500. */
export const membersQuery = (workspace: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "members"), "list"],
    queryFn: async ({ signal }) => ({
      members: await allPages(
        async (pageToken) =>
          body(
            await api.GET("/v1/workspaces/{workspace}/members", {
              params: { path: { workspace }, query: page(pageToken, 200) },
              signal,
            }),
          ),
        (p) => p.members,
      ),
    }),
  });

export const invitationsQuery = (workspace: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "members"), "invitations"],
    queryFn: async ({ signal }) =>
      body(await api.GET("/v1/workspaces/{workspace}/invitations", { params: { path: { workspace } }, signal })),
  });

/** Every key of the workspace: there are at most 200. Others may revoke them, and programs use them. */
export const apiKeysQuery = (workspace: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "apiKeys"), "list"],
    queryFn: ({ signal }) =>
      allPages(
        async (pageToken) =>
          body(
            await api.GET("/v1/workspaces/{workspace}/apiKeys", {
              params: { path: { workspace }, query: page(pageToken, 200) },
              signal,
            }),
          ),
        (p) => p.apiKeys,
      ),
    refetchInterval: 10_000,
  });

/** The browsers of this person: of no workspace. */
export const sessionsQuery = queryOptions({
  queryKey: ["sessions"],
  queryFn: async ({ signal }) => body(await api.GET("/v1/sessions", { signal })),
});

export const targetsQuery = (workspace: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "notifications"), "list"],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/notificationTargets", {
          params: { path: { workspace }, query: { pageSize: 200 } },
          signal,
        }),
      ),
  });

export const attemptsQuery = (workspace: string, target: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "notifications"), "attempts", target],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/notificationTargets/{target}/attempts", {
          params: { path: { workspace, target } },
          signal,
        }),
      ),
    refetchInterval: 10_000, // while the log is open
  });

// An app that is being deleted is not asked for again, though a change event comes while its page is still there.
const going = new Set<string>();
const place = (workspace: string, app: string) => `${workspace}/${app}`;
export const goes = (workspace: string, app: string) => going.add(place(workspace, app));
export const stays = (workspace: string, app: string) => going.delete(place(workspace, app));
export const isGoing = (workspace: string, app: string) => going.has(place(workspace, app));

export const appQuery = (workspace: string, app: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "app"), "one", app],
    enabled: () => !isGoing(workspace, app),
    queryFn: async ({ signal }) =>
      body(await api.GET("/v1/workspaces/{workspace}/apps/{app}", { params: { path: { workspace, app } }, signal })),
  });

/** Whether a list before was of the same app: what another one's showed must never be shown for this one. */
const ofOne = (before: { queryKey: readonly unknown[] } | undefined, workspace: string, app: string) =>
  before?.queryKey[1] === workspace && before.queryKey[3] === app;

export interface HistoryFilter {
  state?: string;
  trigger?: string;
  branch?: string;
  commit?: string;
}

export const deploymentsQuery = (workspace: string, app: string, filter: HistoryFilter, pageSize = 30) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "deployment"), app, "list", filter, pageSize],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/apps/{app}/deployments", {
          params: { path: { workspace, app }, query: { ...page(pageParam, pageSize), ...(filter as object) } },
          signal,
        }),
      ),
    getNextPageParam: next,
    placeholderData: (previous, q) => (ofOne(q, workspace, app) ? previous : undefined),
  });

export const deploymentQuery = (workspace: string, app: string, number: number) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "deployment"), app, "one", number],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}", {
          params: { path: { workspace, app, number } },
          signal,
        }),
      ),
  });

/** The last lines of a deployment's log. */
export const logEndQuery = (workspace: string, app: string, number: number) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "deployment"), app, "log end", number],
    queryFn: async ({ signal }) => {
      const answer = await api.GET("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}/log", {
        params: { path: { workspace, app, number }, query: { tail: 30 } },
        parseAs: "text",
        signal,
      });
      return body(answer)
        .split("\n")
        .filter((line) => line.trim() !== "")
        .map((line) => JSON.parse(line) as Partial<LogRecord>)
        .filter((r): r is LogRecord => r.line !== undefined && r.text !== undefined);
    },
  });

export interface DeliveryFilter {
  branch?: string;
  commit?: string;
  outcome?: "DEPLOYED" | "FAILED" | "TURNED_AWAY" | "PENDING" | "STOPPED";
  after?: string;
  before?: string;
}

export const appDeliveriesQuery = (workspace: string, app: string, filter: DeliveryFilter = {}) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "delivery"), app, filter],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/apps/{app}/deliveries", {
          params: { path: { workspace, app }, query: { ...page(pageParam, 50), ...filter } },
          signal,
        }),
      ),
    getNextPageParam: next,
    placeholderData: (previous, q) => (ofOne(q, workspace, app) ? previous : undefined),
  });

/** How many of Bitbucket's calls are used and left, and by whom. */
export const budgetQuery = (workspace: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "budget")],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/integrations/bitbucket/budget", {
          params: { path: { workspace } },
          signal,
        }),
      ),
    refetchInterval: 60_000,
  });

export const refusedQuery = (workspace: string, webhook: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "delivery"), "refused", webhook],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/webhooks/{webhook}/deliveries", {
          params: { path: { workspace, webhook }, query: { refused: true, pageSize: 10 } },
          signal,
        }),
      ),
  });

export const webhookQuery = (workspace: string, webhook: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "webhook"), webhook],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/webhooks/{webhook}", {
          params: { path: { workspace, webhook } },
          signal,
        }),
      ),
  });

/** Every webhook of the workspace, or every one in a state: one for each repository, so there may be hundreds. */
export const webhooksQuery = (workspace: string, state?: Webhook["state"]) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "webhook"), "list", state],
    queryFn: ({ signal }) =>
      allPages(
        async (pageToken) =>
          body(
            await api.GET("/v1/workspaces/{workspace}/webhooks", {
              params: {
                path: { workspace },
                query: { ...page(pageToken, 200), ...(state === undefined ? {} : { state }) },
              },
              signal,
            }),
          ),
        (p) => p.webhooks,
      ),
  });

/** All webhooks, those first that need somebody. */
export const webhooksByHealthQuery = (workspace: string) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "webhook"), "by health"],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/webhooks", {
          params: { path: { workspace }, query: { ...page(pageParam, 50), orderBy: "health" } },
          signal,
        }),
      ),
    getNextPageParam: next,
  });

// React Aria makes a node of every item that is here, in sight or not: the first page fills the list
// three times over, and what is scrolled to comes by the hundreds.
const firstPage = 24;

export const repositoriesQuery = (workspace: string, query: string) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "repositories"), query],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/repositories", {
          params: {
            path: { workspace },
            query: { ...page(pageParam, pageParam === "" ? firstPage : 200), ...(query === "" ? {} : { query }) },
          },
          signal,
        }),
      ),
    getNextPageParam: next,
    placeholderData: (previous, q) => (q?.queryKey[1] === workspace ? previous : undefined),
    staleTime: 10_000,
  });

/** What of a commit could be served. A commit stays what it is: asked once. */
export const suggestServeQuery = (workspace: string, repository: string, commit: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "suggestServe"), repository, commit],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/repositories/{repository}:suggestServe", {
          params: { path: { workspace, repository }, query: { commit } },
          signal,
        }),
      ),
    staleTime: Infinity,
    // The form goes on without it: one call for a branch, also where it fails.
    retry: false,
  });

export const branchesQuery = (workspace: string, repository: string, query: string) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "branches"), repository, query],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/repositories/{repository}/branches", {
          params: {
            path: { workspace, repository },
            query: { ...page(pageParam, pageParam === "" ? firstPage : 200), ...(query === "" ? {} : { query }) },
          },
          signal,
        }),
      ),
    getNextPageParam: next,
    // A query of another repository's branches must never be shown for this one.
    placeholderData: (previous, q) => (q?.queryKey[3] === repository ? previous : undefined),
    staleTime: 5_000,
  });

// More matches than anybody reads: who looks for another one searches.
const enoughMatches = 200;

/** The branches that a pattern matches, live, the newest first; pages are read until there are enough. */
export const matchingBranchesQuery = (workspace: string, repository: string, pattern: string, query: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "branches"), repository, "matching", pattern, query],
    queryFn: async ({ signal }) => {
      const matches = matcher(pattern);
      const search = query === "" ? patternPrefix(pattern) : query;
      const branches: Branch[] = [];
      let token = "";
      do {
        const list = body(
          await api.GET("/v1/workspaces/{workspace}/repositories/{repository}/branches", {
            params: {
              path: { workspace, repository },
              query: { ...page(token, 500), ...(search === "" ? {} : { query: search }) },
            },
            signal,
          }),
        );
        branches.push(...list.branches.filter((b) => matches(b.name)));
        token = list.nextPageToken;
      } while (token !== "" && branches.length < enoughMatches);
      return { branches, more: token !== "" };
    },
    placeholderData: (previous, q) =>
      q?.queryKey[3] === repository && q.queryKey[5] === pattern ? previous : undefined,
    staleTime: 1_000, // who opens the list again has pushed meanwhile
  });

/** Which records of the activity list are wanted; what is absent lets all through. */
export interface ActivityFilter {
  actor?: string;
  action?: string;
  app?: string;
  after?: string;
  before?: string;
}

export const activityQuery = (workspace: string, filter: ActivityFilter) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "activity"), filter],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/activity", {
          params: { path: { workspace }, query: { ...page(pageParam, 50), ...filter } },
          signal,
        }),
      ),
    getNextPageParam: next,
    placeholderData: (previous, q) => (q?.queryKey[1] === workspace ? previous : undefined),
  });

/** How many are read for a picture of days; of more it says that they are the newest. */
const enoughForDays = 400;

/** All that came to an app since a time, newest first, as far as a picture shows them. */
export const deliveriesSinceQuery = (workspace: string, app: string, after: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "delivery"), app, "since", after],
    queryFn: ({ signal }) =>
      upTo(enoughForDays, async (token) => {
        const list = body(
          await api.GET("/v1/workspaces/{workspace}/apps/{app}/deliveries", {
            params: { path: { workspace, app }, query: { ...page(token, 200), after } },
            signal,
          }),
        );
        return [list.deliveries, list.nextPageToken];
      }),
  });

/** The deployments of a workspace since a time. It is as new as the page: a week does not change by the second. */
export const weekQuery = (workspace: string, after: string) =>
  queryOptions({
    queryKey: [...keys.kind(workspace, "week"), after],
    queryFn: ({ signal }) =>
      upTo(enoughForDays, async (token) => {
        const list = body(
          await api.GET("/v1/workspaces/{workspace}/deployments", {
            params: { path: { workspace }, query: { ...page(token, 200), after } },
            signal,
          }),
        );
        return [list.deployments, list.nextPageToken];
      }),
  });

/** Reads pages until there are enough, and says whether there are more. */
async function upTo<T>(
  most: number,
  read: (token: string) => Promise<readonly [items: T[], next: string]>,
): Promise<{ items: T[]; more: boolean }> {
  const items: T[] = [];
  let token = "";
  do {
    const [some, next] = await read(token);
    items.push(...some);
    token = next;
  } while (token !== "" && items.length < most);
  return { items, more: token !== "" };
}

export const serversQuery = queryOptions({
  queryKey: ["servers"],
  queryFn: async ({ signal }) => body(await api.GET("/v1/servers", { signal })),
});

export function page(pageToken: string, pageSize: number): { pageSize: number; pageToken?: string } {
  return pageToken === "" ? { pageSize } : { pageSize, pageToken };
}

export function next(last: { nextPageToken: string }): string | undefined {
  return last.nextPageToken === "" ? undefined : last.nextPageToken;
}
