import { useId, useState } from "react";
import { useInfiniteQuery, useMutation, useQuery } from "@tanstack/react-query";
import { api, body, type Integration } from "../api/client";
import { integrationQuery, repositoriesQuery } from "../api/queries";
import { consumersPage } from "../lib/text";
import { usePlace } from "../lib/workspace";
import { scopeReasons } from "../lib/words";
import { Button, Copyable, Failed } from "./basics";

/** Begins a connect and goes to Bitbucket's consent page. */
export function ConnectButton({
  label,
  forbidden,
  look = "primary",
  evenIfAppsStop = false,
}: {
  label: string;
  forbidden?: string | undefined;
  look?: "primary" | "plain" | "danger";
  /** Whether an account that cannot reach the repositories of some apps is taken all the same. */
  evenIfAppsStop?: boolean;
}) {
  const { ws, adminOnly } = usePlace();
  const connect = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/integrations/bitbucket:connect", {
          params: { path: { workspace: ws } },
          body: { returnPath: `/w/${ws}/settings/integrations`, evenIfAppsStop },
        }),
      ),
    onSuccess: (begun) => location.assign(begun.authorizeUrl),
  });
  return (
    <>
      {connect.isError && <Failed error={connect.error} title="The connection was not begun." />}
      <Button
        look={look}
        forbidden={adminOnly ?? forbidden}
        busy={connect.isPending || connect.isSuccess}
        onClick={() => connect.mutate()}
      >
        {connect.isPending || connect.isSuccess ? "Opening Bitbucket…" : label}
      </Button>
    </>
  );
}

/** How to make the OAuth consumer, and what Bitbucket's own error pages mean. */
export function Setup({ setup, open }: { setup: Integration["setup"]; open: boolean }) {
  const [shown, setShown] = useState(open);
  if (setup === undefined) return null;
  return (
    <details className="setup" open={open} onToggle={(e) => setShown(e.currentTarget.open)}>
      <summary>Setup: the OAuth consumer on Bitbucket</summary>
      {shown && <SetupSteps setup={setup} />}
    </details>
  );
}

function SetupSteps({ setup }: { setup: NonNullable<Integration["setup"]> }) {
  return (
    <>
      <ol>
        <li>
          On Bitbucket, open Workspace settings, Apps and features, OAuth consumers, and add a consumer. Any name will
          do.
          <ConsumerLinks />
        </li>
        <li>
          Callback URL, exactly this:
          <Copyable label="Callback URL" value={setup.callbackUrl} />
        </li>
        <li>
          <strong>This is a private consumer</strong>: leave it off. Devpilot has no use for it.
        </li>
        <li>
          Permissions to tick:
          <ul>
            {setup.requiredScopes.map((s) => (
              <li key={s}>
                <strong>{boxes[s] ?? s}</strong> <span className="soft">{scopeReasons[s]}</span>
              </li>
            ))}
          </ul>
        </li>
        <li>
          Give the operator the consumer's key and secret, for <code>DEVPILOT_BITBUCKET_CLIENT_ID</code> and{" "}
          <code>DEVPILOT_BITBUCKET_CLIENT_SECRET</code>.{" "}
          {setup.consumerConfigured ? "Both are set." : "Neither is set yet."}
        </li>
      </ol>
      <h4>When Bitbucket shows a page of its own instead of coming back</h4>
      <dl>
        <dt>“Invalid redirect_uri”, and that the integration is misconfigured</dt>
        <dd>
          The consumer's callback URL is not the one above. Compare scheme, host, port and the end of the path: each
          must be the same.
        </dd>
        <dt>A similar page without that title</dt>
        <dd>
          Bitbucket does not know <code>DEVPILOT_BITBUCKET_CLIENT_ID</code>. Compare it with the consumer's key; the
          consumer may also have been deleted.
        </dd>
      </dl>
    </>
  );
}

/** The consumers' page of each Bitbucket workspace that is known, or of the one that is typed. */
function ConsumerLinks() {
  const { ws, info } = usePlace();
  const site = info?.bitbucketSiteUrl ?? "";
  const [typed, setTyped] = useState("");
  const field = useId();
  const state = useQuery(integrationQuery(ws)).data?.state;
  const list = useInfiniteQuery({
    ...repositoriesQuery(ws, ""),
    enabled: state === "CONNECTED" || state === "REFRESH_FAILING",
  });
  const known = [
    ...new Set(list.data?.pages.flatMap((p) => p.repositories.map((r) => r.bitbucketWorkspace)) ?? []),
  ].sort();
  const typedPage = consumersPage(site, typed);
  return (
    <>
      {known.length > 0 && (
        <ul className="links">
          {known.slice(0, 20).map((slug) => {
            const page = consumersPage(site, slug);
            return (
              page !== undefined && (
                <li key={slug}>
                  <a href={page} target="_blank" rel="noreferrer">
                    OAuth consumers of {slug}
                  </a>
                </li>
              )
            );
          })}
        </ul>
      )}
      <div className="inline-field">
        <label htmlFor={field}>Bitbucket workspace</label>
        <input
          id={field}
          value={typed}
          spellCheck={false}
          autoComplete="off"
          placeholder="such as acme"
          onChange={(e) => setTyped(e.target.value)}
        />
        {typedPage !== undefined ? (
          <a href={typedPage} target="_blank" rel="noreferrer">
            Open its OAuth consumers
          </a>
        ) : (
          <span className="soft">
            {typed.trim() === ""
              ? "the word after the site in its addresses"
              : "letters, digits, hyphens, underscores and dots"}
          </span>
        )}
      </div>
    </>
  );
}

const boxes: Record<string, string> = {
  repository: "Repositories: Read",
  account: "Account: Read",
  webhook: "Webhooks: Read and write",
};
