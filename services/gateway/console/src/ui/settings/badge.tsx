import type { App } from "../../api/client";
import { usePlace } from "../../lib/workspace";
import { Copyable, Failed } from "../basics";
import { Switch } from "../switch";
import { useSave } from "./save";

/** The status badge: a link that shows one word to whoever has it, until it is switched off. */
export function Badge({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const save = useSave(app);
  const url = app.badgePath === undefined ? undefined : new URL(app.badgePath, location.origin).href;
  return (
    <section className="card" aria-labelledby="badge">
      <h2 id="badge">Status badge</h2>
      <p className="soft">
        A picture for a README. It says “live”, “deploying” or “failed”, and nothing of the app. Whoever has the link
        sees it; switching it off revokes the link.
      </p>
      <Switch
        selected={app.badge}
        onChange={(badge) => save.mutate({ badge })}
        disabled={adminOnly !== undefined || save.isPending}
      >
        Show a badge to whoever has its link
      </Switch>
      {url !== undefined && (
        <>
          <p>
            <img src={url} alt="The badge as it is now" height={20} />
          </p>
          <Copyable label="Markdown" value={`![deployment](${url})`} />
        </>
      )}
      {save.isError && <Failed error={save.error} workspace={ws} title="The badge was not changed." />}
    </section>
  );
}
