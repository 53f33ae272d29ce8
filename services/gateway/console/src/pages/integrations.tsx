import { useQuery } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import type { Integration } from "../api/client";
import { integrationQuery } from "../api/queries";
import { connectResult } from "../lib/remedy";
import { glyph, integrationLook } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Banner, Button, Failed, PageTitle, Skeleton, Status, useTitle } from "../ui/basics";
import { ConnectButton } from "../ui/connect";
import { Icon } from "../ui/icons";
import { Connected } from "../ui/integration/connected";
import { LeftWebhooks } from "../ui/integration/left";
import { NotConnected } from "../ui/integration/not-connected";
import { Pending } from "../ui/integration/pending";
import { Lost, Trouble } from "../ui/integration/trouble";
import { Webhooks } from "../ui/integration/webhooks";

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
              {result.stopping === true && (
                <ConnectButton look="danger" label="Connect it all the same" evenIfAppsStop />
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
        // As much as a connection takes: what follows it stays where it is.
        <div style={{ minHeight: 620 }}>
          <Skeleton rows={5} />
        </div>
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
          <Bitbucket key={ws} integration={i} />
        </>
      )}
      <Webhooks />
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
      <Lost integration={i} />
      {connected && <Pending integration={i} />}
      {connected ? <Connected integration={i} /> : <NotConnected integration={i} />}
    </section>
  );
}
