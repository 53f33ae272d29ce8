import { useQuery } from "@tanstack/react-query";
import { budgetQuery } from "../../api/queries";
import { usePlace } from "../../lib/workspace";
import { Time } from "../basics";

const budgetNames: Record<string, string> = {
  API: "All calls but those about webhooks",
  WEBHOOKS: "Calls about webhooks",
};

/** How many calls Bitbucket allows in an hour, and who makes them. */
export function Budget() {
  const { ws } = usePlace();
  const budget = useQuery(budgetQuery(ws));
  if (budget.data === undefined) return null;
  return (
    <details>
      <summary>Calls to Bitbucket</summary>
      {!budget.data.shared && (
        <p className="tone-warn">
          Devpilot's services do not know of each other's calls now; each keeps to a share of its own.
        </p>
      )}
      {budget.data.budgets.map((b) => (
        <section key={b.name}>
          <p>
            {budgetNames[b.name] ?? b.name}:{" "}
            {budget.data.shared
              ? `${b.used} of ${b.limit} in the last hour; ${b.left} may be made at once.`
              : `${b.limit} an hour.`}{" "}
            {b.usedElsewhere > 0 && `${b.usedElsewhere} of them for other workspaces or none. `}
            {b.backgroundTime !== undefined && (
              <>
                What runs in the background waits for people, until <Time at={b.backgroundTime} style="clock" />.
              </>
            )}
          </p>
          {b.uses.length > 0 && (
            <ul className="soft">
              {b.uses.map((u) => (
                <li key={`${u.service} ${u.call} ${u.interactive}`}>
                  {u.service}, {u.call}, {u.interactive ? "for people" : "in the background"}: {u.calls}
                </li>
              ))}
            </ul>
          )}
        </section>
      ))}
    </details>
  );
}
