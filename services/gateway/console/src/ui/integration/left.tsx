import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, body, type Webhook } from "../../api/client";
import { keys, webhooksQuery } from "../../api/queries";
import { httpUrl } from "../../lib/text";
import { usePlace } from "../../lib/workspace";
import { Button, Failed, Text } from "../basics";

/** A webhook's settings on Bitbucket. */
export function WebhookLink({ webhook: w }: { webhook: Webhook }) {
  const url = httpUrl(w.settingsUrl);
  return url === undefined ? (
    <span className="grow">
      <Text>{w.repositoryFullName}</Text>
    </span>
  ) : (
    <a className="grow" href={url} target="_blank" rel="noreferrer">
      <Text>{w.repositoryFullName}</Text> webhook settings
    </a>
  );
}

/** Webhooks that an earlier connection left behind, until somebody says they are gone. */
export function LeftWebhooks() {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const webhooks = useQuery(webhooksQuery(ws, "LEFT_ON_BITBUCKET"));
  const dismiss = useMutation({
    mutationFn: async (w: Webhook) =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}/webhooks/{webhook}", {
          params: { path: { workspace: ws, webhook: w.id } },
        }),
      ),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "webhook") }),
  });
  const left = webhooks.data ?? [];
  if (left.length === 0) return null;
  return (
    <section className="card" aria-labelledby="left">
      <h3 id="left">Left on Bitbucket</h3>
      <p>
        These webhooks are still on Bitbucket from a connection that was removed. Delete each in its repository's
        settings, then take it off this list.
      </p>
      {dismiss.isError && <Failed error={dismiss.error} title="Still listed." />}
      <ul className="rows">
        {left.map((w) => (
          <li key={w.id}>
            <WebhookLink webhook={w} />
            <Button
              className="small"
              forbidden={adminOnly}
              busy={dismiss.isPending && dismiss.variables?.id === w.id}
              onClick={() => dismiss.mutate(w)}
            >
              Deleted
              <span className="hidden"> from {w.repositoryFullName}</span>
            </Button>
          </li>
        ))}
      </ul>
    </section>
  );
}
