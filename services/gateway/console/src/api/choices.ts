// What there is to deploy beside a branch's latest commit. In a file of its own: it comes with the dialog that asks.
import { infiniteQueryOptions } from "@tanstack/react-query";
import { api, body } from "./client";
import { keys, next, page } from "./queries";

const perPage = 24;

/** The commits of a branch, live, newest first. */
export const commitsQuery = (workspace: string, repository: string, branch: string) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "commits"), repository, branch],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/repositories/{repository}/commits", {
          params: { path: { workspace, repository }, query: { ...page(pageParam, perPage), branch } },
          signal,
        }),
      ),
    getNextPageParam: next,
    staleTime: 5_000,
  });

/** The tags of a repository, live, the newest commit first. */
export const tagsQuery = (workspace: string, repository: string, query: string) =>
  infiniteQueryOptions({
    queryKey: [...keys.kind(workspace, "tags"), repository, query],
    initialPageParam: "",
    queryFn: async ({ pageParam, signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/repositories/{repository}/tags", {
          params: {
            path: { workspace, repository },
            query: { ...page(pageParam, pageParam === "" ? perPage : 200), ...(query === "" ? {} : { query }) },
          },
          signal,
        }),
      ),
    getNextPageParam: next,
    placeholderData: (previous, q) => (q?.queryKey[3] === repository ? previous : undefined),
    staleTime: 5_000,
  });
