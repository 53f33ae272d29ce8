import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, type Integration } from "../../api/client";
import { integrationQuery, keys, webhooksQuery } from "../../api/queries";
import { usePlace } from "../../lib/workspace";
import { Button, Failed, Said, Skeleton } from "../basics";
import { Dialog } from "../dialog";
import { WebhookLink } from "./left";

/** How many of the webhooks that stay are named: a dialog is read at a glance. */
const named = 20;

/** What goes and what stays when the connection is removed. */
export function RemoveDialog({
  open,
  onClose,
  integration,
}: {
  open: boolean;
  onClose: () => void;
  integration: Integration;
}) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const webhooks = useQuery({ ...webhooksQuery(ws), enabled: open });
  const remove = useMutation({
    mutationFn: async () =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}/integrations/bitbucket", {
          params: { path: { workspace: ws }, query: { etag: integration.etag } },
        }),
      ),
    onSuccess: (answer) => {
      if (answer.integration !== undefined) client.setQueryData(integrationQuery(ws).queryKey, answer.integration);
      void client.invalidateQueries({ queryKey: keys.workspace(ws) });
      onClose();
    },
    onError: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "integration") }),
  });
  const staying = (webhooks.data ?? []).filter(
    (w) => w.state === "ACTIVE" || w.state === "MANUAL" || w.state === "DRIFTED" || w.state === "LEFT_ON_BITBUCKET",
  );
  return (
    <Dialog alert title={`Remove Bitbucket (@${integration.account?.label ?? ""})?`} open={open} onClose={onClose}>
      <p>
        <strong>Goes:</strong> the connection and its tokens are deleted, for good. Pushes no longer deploy.
      </p>
      <p>
        <strong>Stays:</strong> apps, settings, history and what is live. Connect again and they go on.
      </p>
      {webhooks.isPending ? (
        <Skeleton rows={2} />
      ) : webhooks.isError ? (
        <p className="soft">
          The webhooks that stay on Bitbucket could not be read: <Said>{asApiError(webhooks.error).message}</Said>
        </p>
      ) : staying.length > 0 ? (
        <>
          <p>
            {staying.length === 1
              ? "One webhook stays on Bitbucket, where Devpilot cannot reach it afterwards. Its deliveries do nothing; delete it there when you like."
              : `${staying.length} webhooks stay on Bitbucket, where Devpilot cannot reach them afterwards. Their deliveries do nothing; delete them there when you like.`}
          </p>
          <ul className="links">
            {staying.slice(0, named).map((w) => (
              <li key={w.id}>
                <WebhookLink webhook={w} />
              </li>
            ))}
            {staying.length > named && <li>and {staying.length - named} more, which this page lists afterwards</li>}
          </ul>
        </>
      ) : (
        <p>No webhook stays on Bitbucket.</p>
      )}
      {remove.isError && <Failed error={remove.error} title="Nothing was removed." />}
      <div className="actions end">
        <Button autoFocus onClick={onClose}>
          Keep it
        </Button>
        <Button look="danger" busy={remove.isPending} onClick={() => remove.mutate()}>
          {remove.isPending ? "Removing…" : "Remove Bitbucket"}
        </Button>
      </div>
    </Dialog>
  );
}
