import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, body, type AppsTrouble, type Integration } from "../api/client";
import { keys } from "../api/queries";
import { troubleOf } from "../lib/trouble";
import { usePlace } from "../lib/workspace";
import { Banner, Button, Failed, Said } from "./basics";

/** The workspace's own trouble, at most one banner: what is wrong for all its apps, and the way to mend it. */
export function WorkspaceTrouble({
  integration,
  apps,
  troubles,
}: {
  integration: Integration | undefined;
  /** How many there are. */
  apps: number;
  troubles: AppsTrouble[];
}) {
  const { ws } = usePlace();
  const trouble = troubleOf(integration, apps, troubles);
  if (trouble === undefined) return null;
  return (
    <Banner
      tone={trouble.tone}
      title={trouble.title}
      role="status"
      actions={
        <>
          {trouble.webhooks !== undefined && trouble.webhooks.length > 0 && <Repair webhooks={trouble.webhooks} />}
          <Link className="button plain" to={trouble.to(ws)}>
            {trouble.action}
          </Link>
        </>
      }
    >
      <Said>{trouble.text}</Said>
    </Banner>
  );
}

/** Has webhooks compared with Bitbucket's and put right, one after the other. */
function Repair({ webhooks }: { webhooks: string[] }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const repair = useMutation({
    mutationFn: async () => {
      for (const webhook of webhooks) {
        body(
          await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:repair", {
            params: { path: { workspace: ws, webhook } },
            body: {},
          }),
        );
      }
    },
    onSettled: () => {
      void client.invalidateQueries({ queryKey: keys.kind(ws, "app") });
      void client.invalidateQueries({ queryKey: keys.kind(ws, "webhook") });
    },
  });
  return (
    <>
      {repair.isError && <Failed error={repair.error} workspace={ws} title="Not repaired." />}
      <Button forbidden={adminOnly} busy={repair.isPending} onClick={() => repair.mutate()}>
        {repair.isPending ? "Repairing…" : "Repair"}
      </Button>
    </>
  );
}
