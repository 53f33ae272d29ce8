import { useState } from "react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, body, type Integration } from "../../api/client";
import { integrationQuery, keys } from "../../api/queries";
import { useNow } from "../../lib/clock";
import { httpUrl } from "../../lib/text";
import { usePlace } from "../../lib/workspace";
import { Avatar, Button, Failed, Text, Time } from "../basics";
import { ConnectButton, Setup } from "../connect";
import { Icon } from "../icons";
import { Narrowing } from "../narrowing";
import { Prove } from "../prove";
import { Budget } from "./budget";
import { RemoveDialog } from "./remove";
import { Scopes } from "./scopes";

/** The connected account, its token, and what an admin does with them. */
export function Connected({ integration: i }: { integration: Integration }) {
  const { ws, me, adminOnly } = usePlace();
  const client = useQueryClient();
  const [removing, setRemoving] = useState(false);
  const refresh = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/integrations/bitbucket:refresh", {
          params: { path: { workspace: ws } },
          body: {},
        }),
      ),
    onSuccess: (fresh) => client.setQueryData(integrationQuery(ws).queryKey, fresh),
    onError: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "integration") }),
  });
  const now = useNow(10_000).getTime();
  const a = i.account;
  const expires = i.tokenExpireTime;
  return (
    <>
      <div className="account">
        <Avatar name={a?.displayName || a?.label || "?"} url={httpUrl(a?.avatarUrl)} />
        <div>
          <div>
            <strong>
              <Text>{a?.displayName || a?.label}</Text>
            </strong>{" "}
            <span className="soft">
              @<Text>{a?.label}</Text>
            </span>
          </div>
          <div className="soft">
            connected <Time at={i.connectTime} />
            {i.connectedBy !== undefined && (
              <> by {i.connectedById === me.subject ? "you" : <Text>{i.connectedBy}</Text>}</>
            )}
          </div>
        </div>
      </div>
      <p>
        {i.lastRefreshTime !== undefined ? (
          <>
            Token refreshed <Time at={i.lastRefreshTime} />
          </>
        ) : (
          "Token not refreshed yet"
        )}
        {expires !== undefined && (
          <>
            {Date.parse(expires) > now ? ", next before " : ", ran out at "}
            <Time at={expires} style="clock" />
          </>
        )}
        .
      </p>
      <Scopes integration={i} />
      {refresh.isError && i.lastError === undefined && (
        <Failed error={refresh.error} title="The token was not refreshed." />
      )}
      {refresh.isError && i.lastError !== undefined && (
        <p role="alert" className="tone-bad">
          <Icon name="failed" /> The token was not refreshed: see above.
        </p>
      )}
      {refresh.isSuccess && (
        <p role="status" className="tone-good">
          <Icon name="done" /> Token refreshed.
        </p>
      )}
      <div className="actions end">
        {i.state === "CONNECTED" && i.warning === undefined && (
          <ConnectButton look="plain" label="Connect another account" />
        )}
        <Button forbidden={adminOnly} busy={refresh.isPending} onClick={() => refresh.mutate()}>
          {refresh.isPending ? "Refreshing…" : "Refresh Token"}
        </Button>
        <Button forbidden={adminOnly} look="danger" onClick={() => setRemoving(true)}>
          Remove…
        </Button>
      </div>
      <Narrowing integration={i} />
      <Prove />
      <Budget />
      <Setup setup={i.setup} open={false} />
      <RemoveDialog open={removing} onClose={() => setRemoving(false)} integration={i} />
    </>
  );
}
