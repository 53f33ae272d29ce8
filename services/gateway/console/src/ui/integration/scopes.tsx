import type { Integration } from "../../api/client";
import { scopeReasons } from "../../lib/words";
import { Icon } from "../icons";

/** Which permissions are needed, and whether they are granted. */
export function Scopes({ integration: i }: { integration: Integration }) {
  const required = i.setup?.requiredScopes ?? Object.keys(scopeReasons);
  return (
    <ul className="scopes" aria-label="Permissions">
      {required.map((s) => {
        const missing = i.missingScopes.includes(s);
        return (
          <li key={s}>
            <code>{s}</code>
            <span>{scopeReasons[s] ?? "needed by Devpilot"}</span>
            {i.state === "NOT_CONNECTED" ? (
              <span className="soft">needed</span>
            ) : (
              <span className={missing ? "tone-bad" : "tone-good"}>
                <Icon name={missing ? "failed" : "done"} /> {missing ? "missing" : "granted"}
              </span>
            )}
          </li>
        );
      })}
      {i.extraScopes.map((s) => (
        <li key={s}>
          <code>{s}</code>
          <span>more than Devpilot needs: you can untick it in the OAuth consumer</span>
          <span className="soft">granted</span>
        </li>
      ))}
    </ul>
  );
}
