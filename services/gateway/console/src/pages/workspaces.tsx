import { useEffect, useState } from "react";
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useParams } from "react-router";
import { api, asApiError, body, type Workspace } from "../api/client";
import { meQuery } from "../api/queries";
import { signOut } from "../api/sign-out";
import { know, workspacesQuery } from "../api/workspaces";
import { leaves } from "../lib/leaving";
import { roleWords } from "../lib/people";
import { httpUrl, slug } from "../lib/text";
import { ownerOnly } from "../lib/workspace";
import { Banner, Button, Failed, More, PageTitle, Said, Skeleton, Text, Time, useTitle } from "../ui/basics";
import { useAskAgain } from "./missing";
import { DeleteWorkspace } from "../ui/delete-workspace";
import { TextField } from "../ui/settings/parts";
import { useOnce } from "../ui/started";
import { FormDialog, Typed } from "../ui/unsaved";

/** The person's workspaces: to make, rename and delete them. It stands alone where no workspace can be opened. */
export default function Workspaces({ alone = false }: { alone?: boolean }) {
  const list = useInfiniteQuery(workspacesQuery);
  const client = useQueryClient();
  const [creating, setCreating] = useState(false);
  useTitle("Workspaces");
  useAskAgain(alone);
  // What this list tells of workspaces that nothing else follows, the switcher learns too.
  useEffect(() => {
    void client.invalidateQueries({ queryKey: meQuery.queryKey, exact: true });
  }, [client, list.data]);
  const all = list.data?.pages.flatMap((p) => p.workspaces) ?? [];
  const there = all.filter((w) => w.state !== "DELETED");
  const gone = all.filter((w) => w.state === "DELETED");
  const Part = alone ? "main" : "div";
  return (
    <Part className={alone ? "alone" : undefined}>
      <PageTitle
        actions={
          <>
            {alone && <Button onClick={signOut}>Sign out</Button>}
            {!creating && (
              <Button look="primary" onClick={() => setCreating(true)}>
                Create workspace
              </Button>
            )}
          </>
        }
      >
        Workspaces
      </PageTitle>
      <p className="soft">
        A workspace has its own apps, members, keys and connection to Bitbucket.
        {alone && " You are in none: create one, or ask an owner of one to invite you."}
      </p>
      {creating && (
        <Typed>
          <Create onCancel={() => setCreating(false)} />
        </Typed>
      )}
      {list.isPending ? (
        <Skeleton rows={4} />
      ) : list.data === undefined ? (
        <Failed error={list.error} retry={() => void list.refetch()} />
      ) : (
        <>
          {there.length > 0 && (
            <ul className="rows" aria-label="Workspaces">
              {there.map((w) => (
                <Row key={w.id} workspace={w} />
              ))}
            </ul>
          )}
          {gone.length > 0 && (
            <section aria-labelledby="deleted">
              <h2 id="deleted">Deleted</h2>
              <ul className="rows" aria-label="Deleted workspaces">
                {gone.map((w) => (
                  <li key={w.id}>
                    <Gone workspace={w} />
                  </li>
                ))}
              </ul>
            </section>
          )}
          <More query={list} />
        </>
      )}
    </Part>
  );
}

function Name({ workspace: w }: { workspace: Workspace }) {
  return (
    <>
      <strong>
        <Text>{w.displayName}</Text>
      </strong>{" "}
      <code>{w.id}</code>
    </>
  );
}

function Row({ workspace: w }: { workspace: Workspace }) {
  const { ws } = useParams();
  const [opened, setOpened] = useState<"rename" | "delete">();
  const closed = ownerOnly(w);
  if (w.state !== "ACTIVE")
    return (
      <li>
        <Gone workspace={w} />
      </li>
    );
  return (
    <li>
      <div>
        <Name workspace={w} />
        {w.id === ws && " (this one)"}{" "}
        <span className="soft">
          {roleWords[w.role as keyof typeof roleWords]}, made <Time at={w.createTime} />
        </span>
        {closed !== undefined && <div className="soft">{closed}</div>}
      </div>
      <div className="actions">
        <Button forbidden={closed} onClick={() => setOpened("rename")}>
          Rename<span className="hidden"> {w.displayName}</span>
        </Button>
        <Button look="danger" forbidden={closed} onClick={() => setOpened("delete")}>
          Delete…<span className="hidden"> {w.displayName}</span>
        </Button>
      </div>
      {opened === "rename" && <Rename workspace={w} onClose={() => setOpened(undefined)} />}
      {opened === "delete" && <DeleteWorkspace workspace={w} onClose={() => setOpened(undefined)} />}
    </li>
  );
}

/** How a deletion goes or went, and what is left for people to do. */
function Gone({ workspace: w }: { workspace: Workspace }) {
  const d = w.deletion;
  const going = w.state === "DELETING";
  return (
    <div>
      <Name workspace={w} />{" "}
      <span className="soft">
        {going ? "is being deleted; " : "was deleted; "}
        {d !== undefined && (
          <>
            <Text>{d.deletedBy}</Text> asked for it <Time at={d.time} />.{" "}
          </>
        )}
        {going && (d?.progress === undefined ? "It takes a few minutes." : <Said>{d.progress}</Said>)}
      </span>
      {d !== undefined && d.serversAway.length > 0 && (
        <p>
          {d.serversAway.join(", ")} {d.serversAway.length === 1 ? "is away and removes" : "are away and remove"} the
          releases there when back.
        </p>
      )}
      {d !== undefined && d.webhooksLeft.length > 0 && (
        <>
          <p>Bitbucket keeps these webhooks, which do nothing any more. Delete them there:</p>
          <ul className="links">
            {d.webhooksLeft.map((l) => (
              <li key={l.repositoryFullName}>
                {httpUrl(l.settingsUrl) === undefined ? (
                  <Text>{l.repositoryFullName}</Text>
                ) : (
                  <a href={httpUrl(l.settingsUrl)} target="_blank" rel="noreferrer">
                    <Text>{l.repositoryFullName}</Text>
                  </a>
                )}
                : <Said>{l.message}</Said>
              </li>
            ))}
          </ul>
        </>
      )}
    </div>
  );
}

/** As the API takes an id. */
const idPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

function Create({ onCancel }: { onCancel: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const once = useOnce();
  const [displayName, setDisplayName] = useState("");
  const [id, setId] = useState("");
  const [own, setOwn] = useState(false); // the id is no more made from the name
  const [tried, setTried] = useState(false);
  const create = useMutation({
    mutationFn: async () => {
      const wanted = { workspaceId: id, displayName: displayName.trim() };
      return once(JSON.stringify(wanted), async (requestId) =>
        body(await api.POST("/v1/workspaces", { body: { ...wanted, requestId } })),
      );
    },
    onSuccess: (made) => {
      know(client, made);
      void navigate(`/w/${made.id}/apps`, { state: leaves });
    },
  });
  const refused = create.isError ? asApiError(create.error) : undefined;
  const wrongId =
    tried && !idPattern.test(id)
      ? "Lower-case letters, digits and hyphens; not a hyphen first; 63 at most."
      : (refused?.field("workspaceId") ?? (refused?.reason === "WORKSPACE_EXISTS" ? refused.message : undefined));
  return (
    <form
      className="card"
      aria-label="Create a workspace"
      onSubmit={(e) => {
        e.preventDefault();
        setTried(true);
        if (idPattern.test(id)) create.mutate();
      }}
    >
      <TextField
        label="Name"
        autoFocus
        value={displayName}
        onChange={(name) => {
          setDisplayName(name);
          if (!own) setId(slug(name));
        }}
        error={refused?.field("displayName")}
        hint="For people. You can change it later."
      />
      <TextField
        label="Id"
        code
        value={id}
        onChange={(typed) => {
          setOwn(typed !== "");
          setId(typed);
        }}
        error={wrongId}
        hint="It is in addresses and stays as it is: lower-case letters, digits and hyphens."
      />
      {refused !== undefined &&
        (refused.fields.length > 0 || refused.reason === "WORKSPACE_EXISTS" ? (
          <Banner role="alert" tone="bad" title="Not created: correct the fields that are marked." />
        ) : (
          <Failed error={refused} title="Not created." />
        ))}
      <div className="actions">
        <Button look="primary" type="submit" busy={create.isPending}>
          Create
        </Button>
        <Button onClick={onCancel}>Cancel</Button>
      </div>
    </form>
  );
}

function Rename({ workspace: w, onClose }: { workspace: Workspace; onClose: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState(w.displayName);
  const [etag] = useState(w.etag); // of what the person saw: a change that came meanwhile is told
  const rename = useMutation({
    mutationFn: async () =>
      body(
        await api.PATCH("/v1/workspaces/{workspace}", {
          params: { path: { workspace: w.id } },
          body: { displayName: name.trim(), etag },
        }),
      ),
    onSuccess: (renamed) => {
      know(client, renamed);
      onClose();
    },
    onError: () => void client.invalidateQueries({ queryKey: meQuery.queryKey }),
  });
  const refused = rename.isError ? asApiError(rename.error) : undefined;
  return (
    <FormDialog title={`Rename ${w.displayName}`} onClose={onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          rename.mutate();
        }}
      >
        <TextField
          label="Name"
          autoFocus
          value={name}
          onChange={setName}
          error={refused?.field("displayName")}
          hint={`For people. The id ${w.id} and all addresses stay; empty: the id.`}
        />
        {refused !== undefined && refused.fields.length === 0 && <Failed error={refused} title="Not renamed." />}
        <div className="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button look="primary" type="submit" busy={rename.isPending}>
            Rename
          </Button>
        </div>
      </form>
    </FormDialog>
  );
}
