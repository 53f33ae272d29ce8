// Single apps among many, for pages that come later.
import { queryOptions } from "@tanstack/react-query";
import { listOf } from "./apps";
import { api, body } from "./client";
import { webhookQuery } from "./queries";

/** The first apps that a few letters name; without letters the first of all. */
export const appsNamedQuery = (workspace: string, query: string) =>
  queryOptions({
    queryKey: [...listOf(workspace), "named", query],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/apps", {
          params: {
            path: { workspace },
            query: { pageSize: 20, view: "BASIC", ...(query === "" ? {} : { query, orderBy: "match" }) },
          },
          signal,
        }),
      ).apps,
  });

/** An app that uses a webhook, by its id; null where none does, or the webhook is gone. */
export const appOfWebhookQuery = (workspace: string, webhook: string) =>
  queryOptions({
    queryKey: [...listOf(workspace), "of webhook", webhook],
    queryFn: async ({ client, signal }) => {
      const hook = await client.fetchQuery(webhookQuery(workspace, webhook));
      if (hook.repository === undefined) return null;
      const { apps } = body(
        await api.GET("/v1/workspaces/{workspace}/apps", {
          params: {
            path: { workspace },
            query: { repository: hook.repository, pageSize: 1, view: "BASIC" },
          },
          signal,
        }),
      );
      return apps[0]?.id ?? null;
    },
    retry: false,
  });

/** What is wrong with several apps for one common cause. */
export const troublesQuery = (workspace: string) =>
  queryOptions({
    queryKey: [...listOf(workspace), "troubles"],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/apps", {
          params: { path: { workspace }, query: { pageSize: 1, orderBy: "need", view: "BASIC" } },
          signal,
        }),
      ).troubles,
  });
