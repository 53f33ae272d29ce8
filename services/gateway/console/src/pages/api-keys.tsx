import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, type ApiKey } from "../api/client";
import { apiKeysQuery, keys } from "../api/queries";
import { scopeWords } from "../lib/people";
import { useNow } from "../lib/clock";
import { useMyLabel, usePlace } from "../lib/workspace";
import { ApiKeyForm } from "../ui/api-key-form";
import { Banner, Button, Copyable, Failed, PageTitle, Skeleton, Text, Time, useTitle } from "../ui/basics";
import { Dialog } from "../ui/dialog";
import { Typed } from "../ui/unsaved";

const hour = 3600_000;

/** What programs call the API with: made, shown once, revoked. */
export default function ApiKeys() {
  const { adminOnly } = usePlace();
  const [making, setMaking] = useState(false);
  const [secret, setSecret] = useState<string>();
  useTitle("API keys");
  return (
    <>
      <PageTitle
        actions={
          !making && (
            <Button
              look="primary"
              forbidden={adminOnly}
              onClick={() => {
                setSecret(undefined);
                setMaking(true);
              }}
            >
              Create key
            </Button>
          )
        }
      >
        API keys
      </PageTitle>
      <p className="soft">
        Scripts and pipelines call the API with a key, as <code>Authorization: Bearer</code>. A key is for this
        workspace alone, can do at most what its person can do today, and cannot connect an account: that takes a
        browser.
      </p>
      {secret !== undefined && (
        <Banner
          role="status"
          tone="warn"
          title="Copy the key now: it is shown only once."
          actions={<Button onClick={() => setSecret(undefined)}>Done</Button>}
        >
          <Copyable label="Key" value={secret} />
          <span className="soft">Keep it where your pipeline keeps secrets, not in the repository.</span>
        </Banner>
      )}
      {making && (
        <Typed>
          <ApiKeyForm
            onDone={(made) => {
              setMaking(false);
              setSecret(made);
            }}
            onCancel={() => setMaking(false)}
          />
        </Typed>
      )}
      {adminOnly !== undefined && (
        <p>
          These are your own keys, such as <code>devpilot login</code> makes. Owners and admins see all of them, and
          make others. <span className="soft">{adminOnly}</span>
        </p>
      )}
      <List />
    </>
  );
}

function List() {
  const { ws, adminOnly } = usePlace();
  const list = useQuery(apiKeysQuery(ws));
  if (list.isPending) return <Skeleton rows={3} />;
  if (list.isError) return <Failed error={list.error} workspace={ws} retry={() => void list.refetch()} />;
  if (list.data.length === 0) return <p>{adminOnly === undefined ? "There is no key yet." : "You have no key yet."}</p>;
  return (
    <ul className="rows" aria-label="API keys">
      {list.data.map((k) => (
        <Row key={k.id} apiKey={k} />
      ))}
    </ul>
  );
}

function Row({ apiKey: k }: { apiKey: ApiKey }) {
  const [revoking, setRevoking] = useState(false);
  const myLabel = useMyLabel();
  const now = useNow();
  const expired = k.expireTime !== undefined && Date.parse(k.expireTime) <= now.getTime();
  return (
    <li>
      <div>
        <strong>
          <Text>{k.label}</Text>
        </strong>{" "}
        <code>{k.prefix}…</code>
        <br />
        {scopeWords[k.scope].name}
        {k.role === "OWNER" && ", as an owner"}
        {k.apps !== undefined && `, only ${k.apps.join(", ")}`}{" "}
        <span className="soft">
          · made <Time at={k.createTime} /> by {k.createdBy === myLabel ? "you" : <Text>{k.createdBy}</Text>} ·{" "}
          {k.lastUsedTime === undefined ? (
            "never used"
          ) : now.getTime() - Date.parse(k.lastUsedTime) < hour ? (
            "used within the last hour"
          ) : (
            <>
              last used <Time at={k.lastUsedTime} />
            </>
          )}{" "}
          ·{" "}
          {k.expireTime === undefined ? (
            "does not expire"
          ) : expired ? (
            <strong>
              expired <Time at={k.expireTime} />
            </strong>
          ) : (
            <>
              expires <Time at={k.expireTime} />
            </>
          )}
        </span>
      </div>
      <div className="actions">
        <Button look="danger" onClick={() => setRevoking(true)}>
          Revoke<span className="hidden"> {k.label}</span>
        </Button>
      </div>
      {revoking && <Revoke apiKey={k} onClose={() => setRevoking(false)} />}
    </li>
  );
}

function Revoke({ apiKey: k, onClose }: { apiKey: ApiKey; onClose: () => void }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const revoke = useMutation({
    mutationFn: async () =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}/apiKeys/{apiKey}", {
          params: { path: { workspace: ws, apiKey: k.id } },
        }),
      ),
    onSuccess: onClose,
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "apiKeys") }),
  });
  const failure = revoke.isError ? asApiError(revoke.error) : undefined;
  return (
    <Dialog alert open title={`Revoke ${k.label}?`} onClose={onClose}>
      <p>
        Whatever uses it is refused from its next request on, and what it follows ends. It cannot be taken back: make
        another key instead.
      </p>
      {failure !== undefined && <Failed error={failure} title="Not revoked." />}
      <div className="actions end">
        <Button autoFocus onClick={onClose}>
          Keep
        </Button>
        <Button look="danger" busy={revoke.isPending} onClick={() => revoke.mutate()}>
          Revoke
        </Button>
      </div>
    </Dialog>
  );
}
