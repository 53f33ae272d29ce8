import { Link } from "react-router";
import type { App, Deployment } from "../api/client";
import { httpUrl } from "../lib/text";
import { usePlace } from "../lib/workspace";

/** The app's address, which is what a visitor comes for; nothing while it has none. */
export function LiveLink({ app }: { app: App }) {
  const site = httpUrl(app.liveUrl);
  if (site === undefined || app.live === undefined) return null;
  return (
    <a className="live-link" href={site} target="_blank" rel="noreferrer">
      {new URL(site).host}
    </a>
  );
}

/** How a release that completed is served, or that it is not and where to say what is. */
export function Served({ d, app }: { d: Deployment; app: App | undefined }) {
  const { ws } = usePlace();
  if (d.state !== "COMPLETED" || app === undefined || !d.releaseKept) return null;
  const release = httpUrl(d.releaseUrl);
  const directory = app.serve?.directory ?? "";
  if (release === undefined) {
    if (directory !== "") return null;
    return (
      <p className="soft">
        Nothing of this release is served.{" "}
        <Link to={`/w/${ws}/apps/${app.id}?tab=settings&section=options`}>Say which directory is</Link>, and it has a
        link.
      </p>
    );
  }
  return (
    <p className="soft">
      Served{" "}
      {directory !== "" && (
        <>
          from <code>{directory === "." ? "the whole repository" : directory}</code>{" "}
        </>
      )}
      at{" "}
      <a href={release} target="_blank" rel="noreferrer">
        {new URL(release).host}
      </a>
      .
    </p>
  );
}
