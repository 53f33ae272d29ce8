import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, body, type Webhook } from "../api/client";
import { keys, webhookQuery } from "../api/queries";
import { usePlace } from "../lib/workspace";

/** Whether Bitbucket has no webhook yet, so that mending it is registering it. */
export function registers(w: Pick<Webhook, "state">): boolean {
  return w.state === "NOT_REGISTERED" || w.state === "PENDING";
}

/** Whether somebody else has to act before Devpilot can put a webhook right: its sentence says who, and how. */
export function blocked(w: Pick<Webhook, "health" | "repairable">): boolean {
  return w.health !== undefined && w.health !== "REGISTERED" && !w.repairable;
}

/** Has a webhook registered, or compared with Bitbucket's and put right. */
export function useMend(w: Webhook) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const params = { path: { workspace: ws, webhook: w.id } };
  return useMutation({
    mutationFn: async () =>
      body(
        registers(w)
          ? await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:register", { params, body: {} })
          : await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:repair", { params, body: {} }),
      ),
    onSuccess: (fresh) => client.setQueryData(webhookQuery(ws, w.id).queryKey, fresh),
    onSettled: () => {
      void client.invalidateQueries({ queryKey: keys.kind(ws, "app") });
      void client.invalidateQueries({ queryKey: keys.kind(ws, "webhook") });
    },
  });
}

/** What the button that mends a webhook says. */
export function mendWord(w: Pick<Webhook, "state" | "health" | "repairable">, busy: boolean): string {
  if (blocked(w)) return busy ? "Trying…" : "Try again";
  if (registers(w)) return busy ? "Registering…" : "Register again";
  return busy ? "Repairing…" : "Repair";
}
