import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body } from "../api/client";
import { sessionsQuery } from "../api/queries";
import { useNow } from "../lib/clock";
import { browserName } from "../lib/people";
import { safe } from "../lib/text";
import { toTheHour } from "../lib/time";
import { Button, Failed, PageTitle, Skeleton, Text, Time, useTitle } from "../ui/basics";

/** Where this person is signed in. */
export default function Sessions() {
  const client = useQueryClient();
  const sessions = useQuery(sessionsQuery);
  const now = useNow(60_000);
  useTitle("Sessions");
  const end = useMutation({
    mutationFn: async (session: string) =>
      body(await api.DELETE("/v1/sessions/{session}", { params: { path: { session } } })),
    onSettled: () => void client.invalidateQueries({ queryKey: ["sessions"] }),
  });
  return (
    <>
      <PageTitle>Sessions</PageTitle>
      <p className="soft">
        The browsers that you are signed in with, in every workspace. One that ends is out at once.
      </p>
      {end.isError && <Failed error={asApiError(end.error)} title="Not signed out." />}
      {sessions.isPending ? (
        <Skeleton rows={3} />
      ) : sessions.isError ? (
        <Failed error={sessions.error} retry={() => void sessions.refetch()} />
      ) : sessions.data.sessions.length === 0 ? (
        <p>None is listed.</p>
      ) : (
        <ul className="rows" aria-label="Your sessions">
          {sessions.data.sessions.map((e) => (
            <li key={e.id}>
              <div>
                <span title={safe(e.userAgent)}>
                  <Text>{browserName(e.userAgent)}</Text>
                </span>
                {e.current && <strong> (this one)</strong>}{" "}
                <span className="soft">
                  from <Text>{e.address}</Text>, signed in <Time at={e.createTime} />
                  {e.provider !== undefined && (
                    <>
                      {" "}
                      with <Text>{e.provider}</Text>
                    </>
                  )}
                  , {e.current ? "in use" : `last used ${toTheHour(new Date(e.lastUsedTime ?? ""), now)}`}
                </span>
              </div>
              <div className="actions">
                <Button
                  look="danger"
                  forbidden={e.current ? "This is the browser that you are in: press Sign out." : undefined}
                  busy={end.isPending}
                  onClick={() => end.mutate(e.id)}
                >
                  Sign out<span className="hidden"> {safe(browserName(e.userAgent))}</span>
                </Button>
              </div>
            </li>
          ))}
        </ul>
      )}
    </>
  );
}
