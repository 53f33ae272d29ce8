import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import { api, asApiError, body, type Integration, type Webhook } from "../api/client";
import { budgetQuery, integrationQuery, keys, webhooksQuery } from "../api/queries";
import { useNow } from "../lib/clock";
import { connectResult } from "../lib/remedy";
import { httpUrl } from "../lib/text";
import { glyph, integrationLook, scopeReasons } from "../lib/words";
import { refused } from "../lib/trouble";
import { usePlace } from "../lib/workspace";
import {
  Avatar,
  Banner,
  Button,
  Copyable,
  Failed,
  PageTitle,
  Said,
  Skeleton,
  Status,
  Text,
  Time,
  Upcoming,
  useTitle,
} from "../ui/basics";
import { ConnectButton, Setup } from "../ui/connect";
import { Dialog } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Narrowing } from "../ui/narrowing";
import { Prove } from "../ui/prove";

export default function Integrations() {
  const { ws } = usePlace();
  const integration = useQuery(integrationQuery(ws));
  const [query, setQuery] = useSearchParams();
  const i = integration.data;
  const came = connectResult(query);
  // The address may be older than what is there now.
  const result = came?.tone === "good" && i?.state !== "CONNECTED" ? undefined : came;
  useTitle(
    i === undefined ? undefined : `${glyph(integrationLook(i.state))} ${integrationLook(i.state).word}`,
    "Integrations",
  );
  return (
    <>
      <PageTitle>Integrations</PageTitle>
      {result !== undefined && (
        <Banner
          role={result.tone === "good" ? "status" : "alert"}
          tone={result.tone}
          title={result.title}
          actions={
            <>
              {result.tone === "good" && (
                <Link className="button primary" to={`/w/${ws}/apps/new`}>
                  New app
                </Link>
              )}
              <Button onClick={() => setQuery({}, { replace: true })}>Dismiss</Button>
            </>
          }
        >
          {result.text}
        </Banner>
      )}
      <h2>Source Control</h2>
      {integration.isPending ? (
        <Skeleton rows={5} />
      ) : i === undefined ? (
        <Failed error={integration.error} workspace={ws} retry={() => void integration.refetch()} />
      ) : (
        <>
          {integration.isError && (
            <Failed
              error={integration.error}
              title="The state could not be brought up to date."
              retry={() => void integration.refetch()}
            />
          )}
          <Bitbucket integration={i} />
        </>
      )}
      <LeftWebhooks />
    </>
  );
}

function Bitbucket({ integration: i }: { integration: Integration }) {
  const connected = i.state !== "NOT_CONNECTED";
  return (
    <section className="card" aria-labelledby="bitbucket">
      <div className="card-head">
        <h3 id="bitbucket">
          <Icon name="repository" /> Bitbucket
        </h3>
        <Status look={integrationLook(i.state)} />
      </div>
      <Trouble integration={i} />
      {connected && <Pending integration={i} />}
      {connected ? <Connected integration={i} /> : <NotConnected integration={i} />}
    </section>
  );
}

/** What is wrong with the tokens, and what to do: the sentences are the service's own. */
function Trouble({ integration: i }: { integration: Integration }) {
  const e = i.lastError;
  if (i.state === "REFRESH_FAILING") {
    return (
      <Banner
        tone="warn"
        title="Bitbucket does not renew the token for now."
        role="status"
        actions={refused(i) && <ConnectButton label="Reconnect" />}
      >
        <Said>{e?.message}</Said>
        {e?.retryTime !== undefined && (
          <span className="soft">
            {" "}
            Next attempt <Upcoming at={e.retryTime} />.
          </span>
        )}
      </Banner>
    );
  }
  if (i.state === "RECONNECT_REQUIRED") {
    const page = httpUrl(i.authorizationsUrl);
    return (
      <Banner
        tone="bad"
        title="Bitbucket must be connected again."
        role="alert"
        actions={<ConnectButton label="Reconnect" />}
      >
        <Said>{e?.message}</Said>
        {e?.message.includes("apps and settings stay") !== true && " Your apps and settings stay."}
        {i.missingScopes.length > 0 && <> Missing permission: {i.missingScopes.join(", ")}.</>}
        {page !== undefined && (
          <>
            {" "}
            <a href={page} target="_blank" rel="noreferrer">
              App authorizations on Bitbucket
            </a>
          </>
        )}
      </Banner>
    );
  }
  return null;
}

function Connected({ integration: i }: { integration: Integration }) {
  const { ws, adminOnly } = usePlace();
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
              <>
                {" "}
                by <Text>{i.connectedBy}</Text>
              </>
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
      <Narrowing integration={i} />
      <Prove />
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
        <Button forbidden={adminOnly} busy={refresh.isPending} onClick={() => refresh.mutate()}>
          {refresh.isPending ? "Refreshing…" : "Refresh Token"}
        </Button>
        <Button forbidden={adminOnly} look="danger" onClick={() => setRemoving(true)}>
          Remove…
        </Button>
      </div>
      <Budget />
      <Setup setup={i.setup} open={false} />
      <RemoveDialog open={removing} onClose={() => setRemoving(false)} integration={i} />
    </>
  );
}

const budgetNames: Record<string, string> = {
  API: "All calls but those about webhooks",
  WEBHOOKS: "Calls about webhooks",
};

/** How many calls Bitbucket allows in an hour, and who makes them. */
function Budget() {
  const { ws } = usePlace();
  const budget = useQuery(budgetQuery(ws));
  if (budget.data === undefined) return null;
  return (
    <details>
      <summary>Calls to Bitbucket</summary>
      {!budget.data.shared && (
        <p className="tone-warn">
          Devpilot's services do not know of each other's calls now; each keeps to a share of its own.
        </p>
      )}
      {budget.data.budgets.map((b) => (
        <section key={b.name}>
          <p>
            {budgetNames[b.name] ?? b.name}:{" "}
            {budget.data.shared
              ? `${b.used} of ${b.limit} in the last hour; ${b.left} may be made at once.`
              : `${b.limit} an hour.`}{" "}
            {b.usedElsewhere > 0 && `${b.usedElsewhere} of them for other workspaces or none. `}
            {b.backgroundTime !== undefined && (
              <>
                What runs in the background waits for people, until <Time at={b.backgroundTime} style="clock" />.
              </>
            )}
          </p>
          {b.uses.length > 0 && (
            <ul className="soft">
              {b.uses.map((u) => (
                <li key={`${u.service} ${u.call} ${u.interactive}`}>
                  {u.service}, {u.call}, {u.interactive ? "for people" : "in the background"}: {u.calls}
                </li>
              ))}
            </ul>
          )}
        </section>
      ))}
    </details>
  );
}

function Scopes({ integration: i }: { integration: Integration }) {
  const required = i.setup?.requiredScopes ?? Object.keys(scopeReasons);
  return (
    <ul className="scopes" aria-label="Permissions">
      {required.map((s) => {
        const missing = i.missingScopes.includes(s);
        return (
          <li key={s}>
            <code>{s}</code>
            <span>{scopeReasons[s] ?? "needed by Devpilot"}</span>
            {i.state === "NOT_CONNECTED" ? (
              <span className="soft">needed</span>
            ) : (
              <span className={missing ? "tone-bad" : "tone-good"}>
                <Icon name={missing ? "failed" : "done"} /> {missing ? "missing" : "granted"}
              </span>
            )}
          </li>
        );
      })}
      {i.extraScopes.map((s) => (
        <li key={s}>
          <code>{s}</code>
          <span>more than Devpilot needs: you can untick it in the OAuth consumer</span>
          <span className="soft">granted</span>
        </li>
      ))}
    </ul>
  );
}

const noConsumer = "There is no OAuth consumer yet: see Setup below.";

function NotConnected({ integration: i }: { integration: Integration }) {
  const configured = i.setup?.consumerConfigured === true;
  return (
    <>
      <p>
        Connect a Bitbucket account. Devpilot then offers its repositories and branches, and deploys on every push if
        you like.
      </p>
      <Scopes integration={{ ...i, missingScopes: [], extraScopes: [] }} />
      <Pending integration={i} />
      <div className="actions end">
        {!configured && <span className="soft">{noConsumer}</span>}
        <ConnectButton label="Connect" forbidden={configured ? undefined : noConsumer} />
      </div>
      <Setup setup={i.setup} open={!configured || i.pendingHandshake !== undefined} />
    </>
  );
}

const answerDue = 2 * 60_000;

/** A connect that was begun and has not come back; after two minutes it says what may be in the way. */
function Pending({ integration: i }: { integration: Integration }) {
  const now = useNow(1000).getTime();
  const p = i.pendingHandshake;
  const begun = Date.parse(p?.startTime ?? "");
  if (p === undefined || Number.isNaN(begun) || (p.expireTime !== undefined && Date.parse(p.expireTime) <= now))
    return null;
  if (now - begun < answerDue) {
    return (
      <Banner tone="idle" role="status" title="A connection waits for Bitbucket's answer.">
        Begun <Time at={p.startTime} />
        {p.expireTime !== undefined && (
          <>
            , good until <Time at={p.expireTime} style="clock" />
          </>
        )}
        . Finish on Bitbucket's page, or press Connect to start again.
      </Banner>
    );
  }
  return (
    <Banner tone="warn" role="status" title="Bitbucket has not answered for 2 minutes.">
      If its page says “Invalid redirect_uri”, the OAuth consumer has another callback URL than this one. Copy it into
      the consumer, exactly as it stands, then connect again. If you closed the page, simply connect again.
      {i.setup !== undefined && <Copyable label="Callback URL" value={i.setup.callbackUrl} />}
    </Banner>
  );
}

function RemoveDialog({
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
  const staying = (webhooks.data?.webhooks ?? []).filter(
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
          <WebhookLinks webhooks={staying} />
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

function WebhookLink({ webhook: w }: { webhook: Webhook }) {
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

function WebhookLinks({ webhooks }: { webhooks: readonly Webhook[] }) {
  return (
    <ul className="links">
      {webhooks.map((w) => (
        <li key={w.id}>
          <WebhookLink webhook={w} />
        </li>
      ))}
    </ul>
  );
}

/** Webhooks that an earlier connection left behind, until somebody says they are gone. */
function LeftWebhooks() {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const webhooks = useQuery(webhooksQuery(ws));
  const dismiss = useMutation({
    mutationFn: async (w: Webhook) =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}/webhooks/{webhook}", {
          params: { path: { workspace: ws, webhook: w.id } },
        }),
      ),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "webhook") }),
  });
  const left = (webhooks.data?.webhooks ?? []).filter((w) => w.state === "LEFT_ON_BITBUCKET");
  if (left.length === 0) return null;
  return (
    <section className="card" aria-labelledby="left">
      <h3 id="left">Left on Bitbucket</h3>
      <p>
        These webhooks are still on Bitbucket from a connection that was removed. Delete each in its repository's
        settings, then take it off this list.
      </p>
      {dismiss.isError && <Failed error={dismiss.error} title="It is still listed." />}
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
              It is deleted
              <span className="hidden"> from {w.repositoryFullName}</span>
            </Button>
          </li>
        ))}
      </ul>
    </section>
  );
}
