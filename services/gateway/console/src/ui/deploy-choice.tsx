import { useMemo, useState, type ReactNode } from "react";
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { commitsQuery, tagsQuery } from "../api/choices";
import { asApiError, type App, type Commit, type Tag } from "../api/client";
import { useAsked } from "../lib/asked";
import { isPattern, shortHash, subject } from "../lib/text";
import { watched } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Said, Text, Time } from "./basics";
import { Combobox } from "./combobox";
import { useDeploy } from "./deploy-latest";
import { Dialog } from "./dialog";

type What = "latest" | "commit" | "tag";

/** A commit to choose; of one whose hash was typed nothing else is known. */
type CommitChoice = Pick<Commit, "hash"> & Partial<Commit>;

/** Chooses what of an app's repository is deployed: the branch's latest commit, another one of its history, or a tag. */
export default function DeployChoice({ app, onClose }: { app: App; onClose: () => void }) {
  const { ws, adminOnly } = usePlace();
  const deploy = useDeploy();
  const [what, setWhat] = useState<What>("latest");
  const [commit, setCommit] = useState<CommitChoice>();
  const [tag, setTag] = useState<Tag>();
  const [pause, setPause] = useState(false);
  // Of a pattern it is the branch that was pushed to last.
  const branch = isPattern(app.branch) ? app.sync?.branch : app.branch;
  const chosen = what === "commit" ? commit?.hash : what === "tag" ? tag?.name : branch;
  const named = what !== "latest";
  const words: [What, ReactNode][] = [
    ["latest", <>The latest commit of {<Text>{branch ?? ""}</Text>}</>],
    ["commit", <>Another commit of {<Text>{branch ?? ""}</Text>}</>],
    ["tag", "A tag"],
  ];
  return (
    <Dialog title={`Deploy ${app.id}`} open onClose={onClose}>
      <form
        noValidate
        onSubmit={(e) => {
          e.preventDefault();
          if (chosen === undefined || deploy.isPending) return;
          deploy.mutate(
            {
              app: app.id,
              ...(what === "tag" ? { tag: chosen } : { branch: branch ?? "" }),
              ...(what === "commit" ? { commit: chosen } : {}),
              ...(named && pause ? { pauseAutoDeploy: true } : {}),
            },
            { onSuccess: onClose },
          );
        }}
      >
        <fieldset className="plain choices">
          <legend>What to deploy</legend>
          {words.map(([id, text]) => (
            <label key={id} className="check block">
              <input
                type="radio"
                name="what"
                checked={what === id}
                disabled={id !== "tag" && branch === undefined}
                onChange={() => {
                  deploy.reset();
                  setWhat(id);
                }}
              />
              <span>{text}</span>
            </label>
          ))}
        </fieldset>
        {what === "commit" && branch !== undefined && (
          <Commits repository={app.repository} branch={branch} value={commit} onChoose={setCommit} />
        )}
        {what === "tag" && <Tags repository={app.repository} value={tag} onChoose={setTag} />}
        {named && app.autoDeploy && (
          <>
            <label className="check block">
              <input
                type="checkbox"
                checked={pause}
                disabled={adminOnly !== undefined}
                onChange={(e) => setPause(e.target.checked)}
              />{" "}
              Switch auto-deploy off
            </label>
            <p className="soft">
              {pause ? (
                "Pushes do not deploy until somebody switches it on again."
              ) : (
                <>
                  The next push to <Text>{watched(app.branch)}</Text> deploys and takes the place of what you choose.
                </>
              )}{" "}
              {adminOnly}
            </p>
          </>
        )}
        {deploy.isError && <Failed error={deploy.error} workspace={ws} title="Nothing was deployed." />}
        <div className="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button
            type="submit"
            look="primary"
            busy={deploy.isPending}
            forbidden={chosen === undefined ? `Choose a ${what === "tag" ? "tag" : "commit"} first.` : undefined}
          >
            {deploy.isPending ? (
              "Starting…"
            ) : (
              <>
                Deploy <Text>{what === "commit" ? shortHash(chosen) : (chosen ?? "")}</Text>
              </>
            )}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function Row({ name, commit }: { name: ReactNode; commit: Partial<Commit> }) {
  return (
    <>
      <span className="option-main">{name}</span>
      <span className="option-sub">
        <Text>{subject(commit.message)}</Text> {commit.authorName !== undefined && <Text>{commit.authorName}</Text>}{" "}
        {commit.time !== undefined && <Time at={commit.time} />}
      </span>
    </>
  );
}

/** What begins as a hash does, with as many digits as the API asks for. */
const hash = /^[0-9a-f]{7,40}$/i;

function Commits({
  repository,
  branch,
  value,
  onChoose,
}: {
  repository: string;
  branch: string;
  value: CommitChoice | undefined;
  onChoose: (c: CommitChoice) => void;
}) {
  const { ws } = usePlace();
  const [typed, setTyped] = useState("");
  const list = useInfiniteQuery(commitsQuery(ws, repository, branch));
  const items = useMemo(() => {
    const all: CommitChoice[] = list.data?.pages.flatMap((p) => p.commits) ?? [];
    const query = typed.trim().toLowerCase();
    const found = all.filter(
      (c) => c.hash.startsWith(query) || `${c.message ?? ""} ${c.authorName ?? ""}`.toLowerCase().includes(query),
    );
    // An older one than are listed is found by its hash.
    return found.length === 0 && hash.test(query) ? [{ hash: query }] : found;
  }, [list.data, typed]);
  return (
    <Combobox<CommitChoice>
      label="Commit"
      description="Type words of its message, or its hash: older ones are found by that."
      error={list.isError ? <Said>{asApiError(list.error).message}</Said> : undefined}
      placeholder={list.isPending ? "Loading the commits…" : "Search the newest commits"}
      value={value}
      text={(c) => [shortHash(c.hash), subject(c.message)].join(" ").trim()}
      id={(c) => c.hash}
      onChoose={onChoose}
      onQuery={setTyped}
      items={items}
      total={list.hasNextPage ? items.length + 1 : items.length}
      onNeed={() => {
        if (list.hasNextPage && !list.isFetchingNextPage) void list.fetchNextPage();
      }}
      loading={list.isFetching}
      empty="None of the newest commits has this in it. An older one is found by its hash."
      row={(c) => <Row name={<code>{shortHash(c.hash)}</code>} commit={c} />}
      footer={
        list.data !== undefined && (
          <span>
            Commits of <Text>{branch}</Text>, live from Bitbucket
          </span>
        )
      }
    />
  );
}

function Tags({
  repository,
  value,
  onChoose,
}: {
  repository: string;
  value: Tag | undefined;
  onChoose: (t: Tag) => void;
}) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const { asked, ask } = useAsked((query) => client.fetchInfiniteQuery(tagsQuery(ws, repository, query)));
  const list = useInfiniteQuery(tagsQuery(ws, repository, asked));
  const items = useMemo(() => list.data?.pages.flatMap((p) => p.tags) ?? [], [list.data]);
  return (
    <Combobox<Tag>
      label="Tag"
      error={list.isError ? <Said>{asApiError(list.error).message}</Said> : undefined}
      placeholder={list.isPending ? "Loading the tags…" : "Search the tags"}
      value={value}
      text={(t) => t.name}
      id={(t) => t.name}
      onChoose={onChoose}
      onQuery={ask}
      items={items}
      total={list.data?.pages[0]?.totalSize ?? 0}
      onNeed={() => {
        if (list.hasNextPage && !list.isFetchingNextPage) void list.fetchNextPage();
      }}
      loading={list.isFetching}
      empty={asked === "" ? "The repository has no tag yet: push one, then come back." : `No tag contains “${asked}”.`}
      row={(t) => (
        <Row
          name={
            <>
              <Text>{t.name}</Text> <code>{shortHash(t.commit.hash)}</code>
            </>
          }
          commit={t.commit}
        />
      )}
      footer={list.data !== undefined && <span>Tags, live from Bitbucket</span>}
    />
  );
}
