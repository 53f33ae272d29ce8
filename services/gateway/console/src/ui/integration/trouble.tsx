import { useQuery } from "@tanstack/react-query";
import type { Integration } from "../../api/client";
import { troublesQuery } from "../../api/some-apps";
import { httpUrl } from "../../lib/text";
import { lostAccess, refused } from "../../lib/trouble";
import { usePlace } from "../../lib/workspace";
import { Banner, Said, Upcoming } from "../basics";
import { ConnectButton } from "../connect";

/** What is wrong with the tokens, and what to do: the sentences are the service's own. */
export function Trouble({ integration: i }: { integration: Integration }) {
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
  if (i.warning !== undefined) {
    return (
      <Banner
        tone="warn"
        title="Who connected Bitbucket is no longer a member."
        role="status"
        actions={<ConnectButton label="Connect your account" />}
      >
        <Said>{i.warning}</Said>
      </Banner>
    );
  }
  return null;
}

/** Several apps whose repositories the connected account cannot reach, or whose Bitbucket workspaces are left out. */
export function Lost({ integration: i }: { integration: Integration }) {
  const { ws } = usePlace();
  const troubles = useQuery(troublesQuery(ws));
  const lost = lostAccess(i, troubles.data ?? []);
  if (lost === undefined || i.state === "RECONNECT_REQUIRED" || i.state === "NOT_CONNECTED") return null;
  return (
    <Banner
      tone={lost.tone}
      title={lost.title}
      role="status"
      actions={lost.tone === "bad" && <ConnectButton label="Connect another account" />}
    >
      {lost.text}
    </Banner>
  );
}
