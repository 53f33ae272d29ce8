import { useMemo, useState } from "react";
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, type Repository } from "../api/client";
import { keys, repositoriesQuery } from "../api/queries";
import { useAsked } from "../lib/asked";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Said, Text, Time, Upcoming } from "./basics";
import { Combobox } from "./combobox";
import { Icon } from "./icons";

/** How often a list that Devpilot is fetching anew is asked for. */
const staleInterval = 1500;

/** Chooses one of all repositories that the connected account can reach. */
export function RepositorySelect({
  value,
  onChange,
  error,
}: {
  value: Repository | undefined;
  onChange: (r: Repository) => void;
  error?: string | undefined;
}) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const [refreshing, setRefreshing] = useState(false);
  const [refusal, setRefusal] = useState<unknown>();
  const [tooSoon, setTooSoon] = useState<string>();
  const { asked, ask } = useAsked((query) => client.fetchInfiniteQuery(repositoriesQuery(ws, query)));
  const list = useInfiniteQuery({
    ...repositoriesQuery(ws, asked),
    // A list that is being fetched anew is asked for until it is here.
    refetchInterval: (q) => (q.state.data?.pages[0]?.stale === true ? staleInterval : false),
  });
  const items = useMemo(() => list.data?.pages.flatMap((p) => p.repositories) ?? [], [list.data]);
  const first = list.data?.pages[0];

  const refresh = async () => {
    setRefreshing(true);
    setRefusal(undefined);
    setTooSoon(undefined);
    try {
      const answer = body(
        await api.GET("/v1/workspaces/{workspace}/repositories", {
          params: { path: { workspace: ws }, query: { refresh: true, pageSize: 1 } },
        }),
      );
      setTooSoon(answer.nextRefreshTime);
      await client.invalidateQueries({ queryKey: keys.kind(ws, "repositories") });
    } catch (e) {
      setRefusal(e);
    } finally {
      setRefreshing(false);
    }
  };
  const total = (first?.totalSize ?? 0).toLocaleString("en");
  return (
    <>
      <Combobox<Repository>
        label="Repository"
        labelled
        description={value === undefined ? "Type a part of its name, or paste its Bitbucket address." : undefined}
        error={error}
        placeholder="Search all repositories"
        value={value}
        text={(r) => r.fullName}
        id={(r) => r.id}
        onChoose={onChange}
        onQuery={ask}
        items={items}
        total={first?.totalSize ?? 0}
        onNeed={() => {
          if (list.hasNextPage && !list.isFetchingNextPage) void list.fetchNextPage();
        }}
        loading={list.isFetching}
        empty={
          list.isError ? (
            <Said>{asApiError(list.error).message}</Said>
          ) : asked === "" ? (
            "The connected account can reach no repository."
          ) : (
            `No repository contains “${asked}”. Paste its full address to look it up live, or refresh the list.`
          )
        }
        row={(r) => (
          <>
            <span className="option-main">
              <Text>{r.name}</Text>
              {r.private && (
                <span className="tag">
                  <Icon name="locked" /> private
                </span>
              )}
              {r.permission !== "ADMIN" && <span className="tag">{r.permission === "WRITE" ? "write" : "read"}</span>}
            </span>
            <span className="option-sub">
              <Text>{r.bitbucketWorkspace}</Text>
              {r.updateTime !== undefined && (
                <>
                  {" · updated "}
                  <Time at={r.updateTime} />
                </>
              )}
            </span>
          </>
        )}
        footer={
          first !== undefined &&
          first.totalSize > 0 && (
            <span>
              {total} {asked === "" ? "repositories" : "match"}, fetched <Time at={first.fetchTime} />
            </span>
          )
        }
      />
      {first !== undefined && (
        <div className="soft list-state">
          <span>
            {total} {asked === "" ? "repositories" : "match"}, fetched <Time at={first.fetchTime} />
            {first.stale && ", a newer list is being fetched"}
          </span>
          <Button look="quiet" className="small" busy={refreshing} onClick={() => void refresh()}>
            {refreshing ? "Refreshing…" : "Refresh"}
          </Button>
        </div>
      )}
      {tooSoon !== undefined && (
        <p className="soft list-state" role="status">
          <span>
            The list was fetched less than a minute ago. Refresh fetches it again <Upcoming at={tooSoon} />.
          </span>
        </p>
      )}
      {first?.partialFailures.map((f) => (
        <p key={f.bitbucketWorkspace + f.reason} className="tone-warn partial">
          <Icon name="alert" /> {f.bitbucketWorkspace !== undefined && <strong>{f.bitbucketWorkspace}: </strong>}
          <Said>{f.message}</Said>
        </p>
      ))}
      {list.isError && <Failed error={list.error} workspace={ws} retry={() => void list.refetch()} />}
      {refusal !== undefined && <Failed error={refusal} workspace={ws} title="The list was not refreshed." />}
    </>
  );
}
