import { infiniteQueryOptions, type QueryClient } from "@tanstack/react-query";
import { api, body, type Workspace } from "./client";
import { meQuery, next, page } from "./queries";

/** How old the list may be: changes are told only of the workspace that is open. A deletion is watched closely. */
const poll = { quiet: 10_000, deleting: 2000 };

/** The person's workspaces by id, also those being deleted, and the deleted ones that the person owned. */
export const workspacesQuery = infiniteQueryOptions({
  queryKey: ["me", "workspaces"], // what makes "me" old makes it old
  initialPageParam: "",
  queryFn: async ({ pageParam, signal }) =>
    body(
      await api.GET("/v1/workspaces", { params: { query: { ...page(pageParam, 200), showDeleted: true } }, signal }),
    ),
  getNextPageParam: next,
  refetchInterval: (q) =>
    q.state.data?.pages.some((p) => p.workspaces.some((w) => w.state === "DELETING")) === true
      ? poll.deleting
      : poll.quiet,
});

/** The switcher's and the page's own copy know at once what the answer to a change said. */
export function know(client: QueryClient, w: Workspace): void {
  client.setQueryData(meQuery.queryKey, (me) => {
    if (me === undefined) return me;
    const others = me.workspaces.filter((o) => o.id !== w.id);
    return { ...me, workspaces: [...others, w].sort((a, b) => (a.id < b.id ? -1 : 1)) };
  });
  client.setQueryData(workspacesQuery.queryKey, (list) =>
    list === undefined
      ? list
      : {
          ...list,
          pages: list.pages.map((p) => ({ ...p, workspaces: p.workspaces.map((o) => (o.id === w.id ? w : o)) })),
        },
  );
  void client.invalidateQueries({ queryKey: meQuery.queryKey });
}
