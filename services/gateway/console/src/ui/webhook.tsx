import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, body, type App, type Webhook } from "../api/client";
import { keys, webhookQuery } from "../api/queries";
import { httpUrl } from "../lib/text";
import { webhookLook } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Banner, Button, Copyable, Failed, Status, Text, Time, Upcoming } from "./basics";

/** The webhook's health in one line, and below it what mends it. */
export function WebhookHealth({ app }: { app: App }) {
  const { ws, info } = usePlace();
  const hook = app.webhook;
  const id = hook?.id ?? "";
  const full = useQuery({ ...webhookQuery(ws, id), enabled: id !== "" });
  if (!app.autoDeploy) return <p className="soft">Pushes do not deploy. Press Deploy latest when you want one.</p>;
  if (hook === undefined) return <p className="soft">The webhook is being registered.</p>;
  const w = full.data;
  const state = w?.state ?? hook.state;
  const verified = w?.lastVerifiedTime ?? hook.lastVerifiedTime;
  return (
    <>
      <p className="health">
        Webhook: <Status look={webhookLook(state)} />
        {" · "}
        {verified !== undefined ? (
          <>
            last verified delivery <Time at={verified} />
          </>
        ) : state === "ACTIVE" || state === "MANUAL" ? (
          "no delivery yet"
        ) : (
          "waiting for the first delivery…"
        )}
      </p>
      {info?.webhooksReachable === false && (
        <p className="soft">Bitbucket cannot reach this address, so Devpilot asks Bitbucket for new commits at intervals. Pushes deploy, later.</p>
      )}
      {w?.lastRefusedTime !== undefined && (verified === undefined || w.lastRefusedTime > verified) && (
        <Banner tone="warn" title="A delivery was refused.">
          Its signature did not match, <Time at={w.lastRefusedTime} />. Compare the secret on Bitbucket with the one here, or press Repair.
        </Banner>
      )}
      {w !== undefined && (state === "NOT_REGISTERED" || state === "DRIFTED" || (state === "PENDING" && w.reason !== "")) && <Mend webhook={w} />}
    </>
  );
}

function Mend({ webhook: w }: { webhook: Webhook }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const mend = useMutation({
    mutationFn: async () => {
      const params = { path: { workspace: ws, webhook: w.id } };
      return body(
        w.state === "DRIFTED"
          ? await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:repair", { params, body: {} })
          : await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:register", { params, body: {} }),
      );
    },
    onSuccess: (fresh) => client.setQueryData(webhookQuery(ws, w.id).queryKey, fresh),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "app") }),
  });
  return (
    <>
      <Banner
        tone="warn"
        title={w.reason === "NOT_REPOSITORY_ADMIN" ? `The connected account is not an admin of ${w.repositoryFullName}.` : webhookLook(w.state).word + "."}
        actions={
          <Button forbidden={adminOnly} busy={mend.isPending} onClick={() => mend.mutate()}>
            {w.state === "DRIFTED" ? "Repair" : "Register again"}
          </Button>
        }
      >
        <Text>{w.message}</Text>
        {w.retryTime !== undefined && (
          <>
            {" "}
            Devpilot tries again by itself <Upcoming at={w.retryTime} />.
          </>
        )}
      </Banner>
      {mend.isError && <Failed error={mend.error} title="The webhook is as it was." />}
      {w.reason === "NOT_REPOSITORY_ADMIN" && <ManualSteps webhook={w} />}
    </>
  );
}

/** How to add the webhook by hand. The secret is shown to who asks for it, and kept nowhere. */
export function ManualSteps({ webhook: w }: { webhook: Webhook }) {
  const { ws, adminOnly } = usePlace();
  const [secret, setSecret] = useState<string>();
  const reveal = useMutation({
    mutationFn: async () => body(await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:revealSecret", { params: { path: { workspace: ws, webhook: w.id } }, body: {} })),
    onSuccess: (answer) => setSecret(answer.secret),
    gcTime: 0,
  });
  const settings = httpUrl(w.settingsUrl);
  return (
    <section className="card inner" aria-label="Add the webhook by hand">
      <h3>Add the webhook by hand</h3>
      <ol>
        <li>
          Somebody who is an admin of the repository opens{" "}
          {settings === undefined ? (
            "its webhook settings on Bitbucket"
          ) : (
            <a href={settings} target="_blank" rel="noreferrer">
              its webhook settings on Bitbucket
            </a>
          )}{" "}
          and adds a webhook.
        </li>
        <li>
          <Copyable label="URL" value={w.url} />
        </li>
        <li>
          {secret === undefined ? (
            <>
              Secret:{" "}
              <Button className="small" forbidden={adminOnly} busy={reveal.isPending} onClick={() => reveal.mutate()}>
                Reveal the secret
              </Button>{" "}
              <span className="soft">noted under Activity</span>
            </>
          ) : (
            <>
              <Copyable label="Secret" value={secret} />
              <Button className="small" onClick={() => setSecret(undefined)}>
                Hide the secret
              </Button>
            </>
          )}
          {reveal.isError && <Failed error={reveal.error} />}
        </li>
        <li>
          Triggers: <strong>Repository push</strong> only <code>{w.events.join(", ")}</code>
        </li>
      </ol>
      <p role="status">
        {w.lastVerifiedTime === undefined ? (
          <span className="status tone-busy">
            <span className="mark" aria-hidden="true">
              ◌
            </span>
            Waiting for the first delivery…
          </span>
        ) : (
          <span className="status tone-good">
            <span className="mark" aria-hidden="true">
              ✓
            </span>
            The first delivery came, and its signature was right.
          </span>
        )}
      </p>
    </section>
  );
}
