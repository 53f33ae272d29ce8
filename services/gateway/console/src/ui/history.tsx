import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import type { App } from "../api/client";
import { deploymentsQuery, type HistoryFilter } from "../api/queries";
import { httpUrl, shortHash, subject } from "../lib/text";
import { deploymentLook, ended, triggerText, triggerWords, watched, workStart } from "../lib/words";
import { useMyLabel, usePlace } from "../lib/workspace";
import { onListKeys, RowLink } from "./rows";
import { Button, Failed, More, Skeleton, Status, Text, Time, Took } from "./basics";
import { SearchText } from "./search-text";

const states = ["PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "SUPERSEDED"];

/** Deployments, newest first. With filters, they are in the address. */
export function History({ app: owner, filters = false }: { app: App; filters?: boolean }) {
  const app = owner.id;
  const { ws } = usePlace();
  const myLabel = useMyLabel();
  const [query, setQuery] = useSearchParams();
  const filter: HistoryFilter = {};
  if (filters) {
    for (const name of ["state", "trigger", "branch", "commit"] as const) {
      const value = query.get(name);
      if (value !== null && value !== "") filter[name] = value;
    }
  }
  const list = useInfiniteQuery(deploymentsQuery(ws, app, filter, filters ? 30 : 10));
  const all = list.data?.pages.flatMap((p) => p.deployments) ?? [];
  const set = (name: string, value: string) => {
    setQuery(
      (q) => {
        if (value === "") q.delete(name);
        else q.set(name, value);
        return q;
      },
      { replace: true },
    );
  };
  const filtered = Object.keys(filter).length > 0;
  return (
    <>
      {filters && (
        <div className="filters" role="search" aria-label="Deployments">
          <select aria-label="State" value={filter.state ?? ""} onChange={(e) => set("state", e.target.value)}>
            <option value="">Any state</option>
            {states.map((s) => (
              <option key={s} value={s}>
                {deploymentLook(s).word}
              </option>
            ))}
          </select>
          <select aria-label="Trigger" value={filter.trigger ?? ""} onChange={(e) => set("trigger", e.target.value)}>
            <option value="">Any trigger</option>
            {Object.entries(triggerWords).map(([id, word]) => (
              <option key={id} value={id}>
                {word}
              </option>
            ))}
          </select>
          <SearchText label="Branch" value={filter.branch ?? ""} onChange={(v) => set("branch", v)} />
          <SearchText label="Commit" search value={filter.commit ?? ""} onChange={(v) => set("commit", v)} />
        </div>
      )}
      {list.isPending ? (
        <Skeleton rows={5} />
      ) : list.isError && all.length === 0 ? (
        <Failed error={list.error} workspace={ws} retry={() => void list.refetch()} />
      ) : all.length === 0 ? (
        <div className="empty-inline">
          <p>
            {filtered
              ? list.hasNextPage
                ? "Nothing matches among the newest deployments."
                : "No deployment matches."
              : `No deployments yet. Press Deploy latest, or push to ${watched(owner.branch)}.`}
          </p>
          {filtered && (
            <Button onClick={() => setQuery({ tab: "deployments" }, { replace: true })}>Clear the filters</Button>
          )}
        </div>
      ) : (
        <div className="table-scroll">
          <table onKeyDown={onListKeys} aria-busy={list.isPlaceholderData}>
            <thead>
              <tr>
                <th scope="col">Deployment</th>
                <th scope="col">Status</th>
                <th scope="col">Commit</th>
                <th scope="col">Trigger</th>
                <th scope="col">When</th>
                <th scope="col">Duration</th>
              </tr>
            </thead>
            <tbody>
              {all.map((d) => {
                const url = httpUrl(d.commit?.url);
                return (
                  <tr key={d.number} className="row">
                    <th scope="row">
                      <RowLink to={`/w/${ws}/apps/${app}/deployments/${d.number}`}>#{d.number}</RowLink>
                    </th>
                    <td className="nowrap" data-label="Status">
                      <Status look={deploymentLook(d.state)} />
                      {d.live && <span className="tag live">live</span>}
                      {d.state === "SUPERSEDED" && d.supersededBy !== undefined && (
                        <span className="soft"> by #{d.supersededBy}</span>
                      )}
                    </td>
                    <td className="row-wide" data-label="Commit">
                      {url === undefined ? (
                        <code>{shortHash(d.commit?.hash) || (ended(d.state) ? "none" : "not known yet")}</code>
                      ) : (
                        <a href={url} target="_blank" rel="noreferrer">
                          <code>{shortHash(d.commit?.hash)}</code>
                        </a>
                      )}{" "}
                      <Text>{subject(d.commit?.message)}</Text>{" "}
                      <span className="soft">
                        <Text>{d.commit?.authorName}</Text>
                        {d.tag !== undefined ? (
                          <>
                            {" "}
                            tagged <Text>{d.tag}</Text>
                          </>
                        ) : (
                          // Of one branch alone nobody need be told.
                          d.branch !== owner.branch && (
                            <>
                              {" "}
                              on <Text>{d.branch}</Text>
                            </>
                          )
                        )}
                      </span>
                    </td>
                    <td className="row-wide soft" data-label="Trigger">
                      <Text>{triggerText(d, myLabel)}</Text>
                    </td>
                    <td className="nowrap row-end" data-label="When">
                      <Time at={d.createTime} />
                    </td>
                    <td className="nowrap row-extra" data-label="Duration">
                      <Took start={workStart(d)} end={d.endTime} />
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
      {filters ? (
        <More query={list} />
      ) : (
        list.hasNextPage && <Link to={`/w/${ws}/apps/${app}?tab=deployments`}>All deployments</Link>
      )}
    </>
  );
}
