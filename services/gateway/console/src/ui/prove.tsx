import { useMutation } from "@tanstack/react-query";
import { api, asApiError, body } from "../api/client";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Said, Text } from "./basics";
import { Icon } from "./icons";

const words: Record<string, string> = { PASSED: "passed", FAILED: "failed", SKIPPED: "skipped" };

/** One click that proves the connection from end to end, and a report to share. */
export function Prove() {
  const { ws, adminOnly } = usePlace();
  const prove = useMutation({
    mutationFn: async () =>
      body(
        await api.GET("/v1/workspaces/{workspace}/integrations/bitbucket:prove", {
          params: { path: { workspace: ws } },
        }),
      ),
  });
  const copy = useMutation({ mutationFn: (text: string) => navigator.clipboard.writeText(text) });
  const report = prove.data;
  return (
    <section aria-labelledby="prove">
      <h4 id="prove">Prove it</h4>
      <p>
        Checks scopes, rights, clock, git and a signed delivery to ourselves. Nothing is changed at Bitbucket; it takes
        up to 25 seconds.
      </p>
      <div className="actions">
        <Button
          forbidden={adminOnly}
          busy={prove.isPending}
          onClick={() => {
            copy.reset();
            prove.mutate();
          }}
        >
          {prove.isPending ? "Checking…" : "Prove it"}
        </Button>
        {report !== undefined && (
          <Button onClick={() => copy.mutate(report.text)}>{copy.isSuccess ? "Copied" : "Copy report"}</Button>
        )}
      </div>
      {prove.isError && <Failed error={asApiError(prove.error)} title="It was not checked." />}
      {report !== undefined && !prove.isPending && (
        <>
          <p role="status" className={report.passed ? "tone-good" : "tone-bad"}>
            <Icon name={report.passed ? "done" : "failed"} />{" "}
            {report.passed ? "Whatever was checked is as it should be." : "Something is not as it should be."}
          </p>
          <ul className="rows" aria-label="Checks">
            {report.checks.map((c) => (
              <li key={c.name}>
                <span className={c.state === "PASSED" ? "tone-good" : c.state === "FAILED" ? "tone-bad" : "soft"}>
                  {c.state !== "SKIPPED" && <Icon name={c.state === "PASSED" ? "done" : "failed"} />}
                </span>
                <div>
                  <div>
                    <strong>
                      <Text>{c.name}</Text>
                    </strong>{" "}
                    <span className="soft">{words[c.state] ?? c.state}</span>
                  </div>
                  <div>
                    <Said>{c.message}</Said>
                  </div>
                  {c.remedy !== undefined && (
                    <div className="soft">
                      <Said>{c.remedy}</Said>
                    </div>
                  )}
                </div>
                <span className="soft nowrap">{c.state === "SKIPPED" ? "" : `${c.durationMillis} ms`}</span>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
