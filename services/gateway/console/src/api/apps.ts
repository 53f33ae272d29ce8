// Lists of apps.
import { infiniteQueryOptions } from "@tanstack/react-query";
import { api, body, type App } from "./client";
import { keys, next, page } from "./queries";

/** The key of all lists of apps. */
export const listOf = (workspace: string) => [...keys.kind(workspace, "app"), "list"] as const;

/** Apps by id, for forms that choose among them. */
export const appsQuery = (workspace: string) =>
  infiniteQueryOptions({
    queryKey: listOf(workspace),
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/apps", {
          params: { path: { workspace }, query: { ...page(pageParam, 100), view: "BASIC" } },
          signal,
        }),
      ),
    getNextPageParam: next,
  });

export interface AppsFilter {
  need?: App["need"];
  query?: string;
}

/** Apps that need somebody first, with how many need what and what is wrong with several of them. */
export const appsByNeedQuery = (workspace: string, filter: AppsFilter) =>
  infiniteQueryOptions({
    queryKey: [...listOf(workspace), "by need", filter],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/apps", {
          params: { path: { workspace }, query: { ...page(pageParam, 50), orderBy: "need", ...filter } },
          signal,
        }),
      ),
    getNextPageParam: next,
    // Another filter's rows stay until the new ones are here; another workspace's never.
    placeholderData: (previous, q) => (q?.queryKey[1] === workspace ? previous : undefined),
  });
