import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { meQuery } from "../api/queries";
import { Text, useTitle } from "../ui/basics";

/** How often somebody is asked for again who is in no workspace: no stream of events tells that this changed. */
const askAgain = 3000;

/** Who is removed may be told so a moment before the session ends; who is let in comes without a reload. */
export function useAskAgain(wanted = true): void {
  useQuery({ ...meQuery, refetchInterval: wanted && askAgain });
}

/** Of a workspace that is not there, or that the person is not in any more. */
export function NoSuchWorkspace() {
  useAskAgain();
  return <NotFound />;
}

/** Within a workspace's frame, which is the page's main part already, it is a section of it. */
export function NotFound({ framed = false }: { framed?: boolean }) {
  useTitle("Not found");
  const Part = framed ? "section" : "main";
  return (
    <Part className="empty">
      <h1>There is no such page</h1>
      <p>The address may be mistyped, or what it named was deleted.</p>
      <Link className="button primary" to="/">
        See your apps
      </Link>
    </Part>
  );
}

/** What stands in place of every page of a workspace that an owner deletes. */
export function BeingDeleted({ name }: { name: string }) {
  useTitle("Being deleted");
  return (
    <section className="empty">
      <h1>
        <Text>{name}</Text> is being deleted
      </h1>
      <p>An owner asked for it. Nothing in it can be read or changed any more.</p>
      <Link className="button primary" to="/">
        Open another workspace
      </Link>
    </section>
  );
}
