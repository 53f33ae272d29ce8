import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, body, type App, type Webhook } from "../api/client";
import { keys, webhookQuery } from "../api/queries";
import { httpUrl } from "../lib/text";
import { notAdmin, webhookLook } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Banner, Button, Copyable, Failed, Said, Status, Text, Time, Upcoming } from "./basics";
import { Dialog } from "./dialog";
import { Icon } from "./icons";
import { blocked, mendWord, registers, useMend } from "./use-mend";

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
      <p className="health fact">
        Webhook <Status look={webhookLook(state)} />
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
        <p className="soft">
          Bitbucket cannot reach this address, so Devpilot asks Bitbucket for new commits at intervals. Pushes deploy,
          later.
        </p>
      )}
      {w?.lastRefusedTime !== undefined && (verified === undefined || w.lastRefusedTime > verified) && (
        <Banner tone="warn" title="A delivery was refused.">
          Its signature did not match, <Time at={w.lastRefusedTime} />. Compare the secret on Bitbucket with the one
          here, or press Repair.
        </Banner>
      )}
      {w !== undefined && broken(w) && <Trouble webhook={w} />}
      {w?.healthMessage !== undefined && w.health !== "SECRET_CHANGED" && w.health !== "NOT_CHECKED" && !broken(w) && (
        <Banner tone="warn" title="The webhook needs a look.">
          <Said>{w.healthMessage}</Said>
        </Banner>
      )}
      {w?.health === "NOT_ADMIN" && w.reason !== "NOT_REPOSITORY_ADMIN" && <ManualSteps webhook={w} />}
      {w?.lastRepair !== undefined && (
        <p className="soft">
          <Said>{w.lastRepair}</Said> <Time at={w.lastRepairTime} />
        </p>
      )}
      {w !== undefined && <Actions webhook={w} />}
    </>
  );
}

function broken(w: Webhook): boolean {
  return (
    w.state === "NOT_REGISTERED" ||
    w.state === "DRIFTED" ||
    w.state === "LEFT_ON_BITBUCKET" ||
    (w.state === "PENDING" && w.reason !== undefined)
  );
}

function Trouble({ webhook: w }: { webhook: Webhook }) {
  return (
    <>
      <Banner
        tone="warn"
        title={
          w.reason === "NOT_REPOSITORY_ADMIN" ? `${notAdmin(w.repositoryFullName)}.` : `${webhookLook(w.state).word}.`
        }
      >
        <Said>{w.message}</Said>
        {w.retryTime !== undefined && (
          <>
            {" "}
            Devpilot tries again by itself <Upcoming at={w.retryTime} />.
          </>
        )}
      </Banner>
      {w.reason === "NOT_REPOSITORY_ADMIN" && <ManualSteps webhook={w} />}
    </>
  );
}

/** What can be done about the webhook, whether or not it ails. */
function Actions({ webhook: w }: { webhook: Webhook }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const [rotating, setRotating] = useState(false);
  const mend = useMend(w);
  const settled = {
    onSuccess: (fresh: Webhook) => client.setQueryData(webhookQuery(ws, w.id).queryKey, fresh),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "app") }),
  };
  const params = { path: { workspace: ws, webhook: w.id } };
  const rotate = useMutation({
    mutationFn: async () =>
      body(await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:rotateSecret", { params, body: {} })),
    ...settled,
    onSuccess: (fresh: Webhook) => {
      settled.onSuccess(fresh);
      setRotating(false);
    },
  });
  const settings = httpUrl(w.settingsUrl);
  const closed =
    adminOnly ??
    (w.state === "LEFT_ON_BITBUCKET" ? "Devpilot reaches the webhook again once Bitbucket is connected." : undefined);
  const byHand = w.state === "MANUAL" || w.reason === "NOT_REPOSITORY_ADMIN";
  return (
    <>
      <div className="actions webhook-actions">
        <Button
          look="quiet"
          className="small"
          forbidden={closed}
          busy={mend.isPending}
          onClick={() => mend.mutate()}
          title={
            blocked(w)
              ? "Asks Bitbucket again, once what is said above was done"
              : registers(w)
                ? "Asks Bitbucket for the webhook again"
                : "Compares the webhook with Bitbucket's and puts right what differs"
          }
        >
          {mendWord(w, mend.isPending)}
        </Button>
        <Button look="quiet" className="small" forbidden={closed} onClick={() => setRotating(true)}>
          Rotate secret…
        </Button>
        {settings !== undefined && (
          <a href={settings} target="_blank" rel="noreferrer">
            Webhook settings on Bitbucket <Icon name="external" />
          </a>
        )}
      </div>
      <p role="status" className={mend.isSuccess || rotate.isSuccess ? "tone-good" : "hidden"}>
        {rotate.isSuccess ? (
          <>
            <Icon name="done" /> There is a new secret.
            {w.oldSecretExpireTime !== undefined && (
              <>
                {" "}
                The old one is accepted until <Time at={w.oldSecretExpireTime} style="clock" />.
              </>
            )}
          </>
        ) : mend.isSuccess && !broken(mend.data) ? (
          <>
            <Icon name="done" /> The webhook is as it should be on Bitbucket.
          </>
        ) : (
          ""
        )}
      </p>
      {mend.isError && <Failed error={mend.error} workspace={ws} title="The webhook was not changed." />}
      <Dialog alert title="Rotate the webhook's secret?" open={rotating} onClose={() => setRotating(false)}>
        <p>
          Devpilot makes a new secret for <Text>{w.repositoryFullName}</Text>.{" "}
          {byHand
            ? "The webhook was added by hand, so the new secret must be put there by hand too; until then the old one is accepted for a while."
            : "Devpilot puts it into the webhook on Bitbucket; the old one is accepted a while longer, so that no delivery is lost."}
        </p>
        {rotate.isError && <Failed error={rotate.error} workspace={ws} title="The secret was not changed." />}
        <div className="actions end">
          <Button autoFocus onClick={() => setRotating(false)}>
            Keep it
          </Button>
          <Button look="primary" busy={rotate.isPending} onClick={() => rotate.mutate()}>
            {rotate.isPending ? "Rotating…" : "Rotate the secret"}
          </Button>
        </div>
      </Dialog>
    </>
  );
}

/** How to add the webhook by hand. The secret is shown to who asks for it, and kept nowhere. */
export function ManualSteps({ webhook: w }: { webhook: Webhook }) {
  const { ws, adminOnly } = usePlace();
  const [secret, setSecret] = useState<string>();
  const reveal = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:revealSecret", {
          params: { path: { workspace: ws, webhook: w.id } },
          body: {},
        }),
      ),
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
            <Icon name="waiting" />
            Waiting for the first delivery…
          </span>
        ) : (
          <span className="status tone-good">
            <Icon name="done" />
            The first delivery came, and its signature was right.
          </span>
        )}
      </p>
    </section>
  );
}
