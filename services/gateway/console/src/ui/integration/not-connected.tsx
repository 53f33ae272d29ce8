import type { Integration } from "../../api/client";
import { ConnectButton, Setup } from "../connect";
import { Pending } from "./pending";
import { Scopes } from "./scopes";

const noConsumer = "There is no OAuth consumer yet: see Setup below.";

/** What connecting needs and brings. */
export function NotConnected({ integration: i }: { integration: Integration }) {
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
