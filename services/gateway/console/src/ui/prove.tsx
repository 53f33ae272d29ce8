import { useState } from "react";
import { useMutation, useQuery } from "@tanstack/react-query";
import { api, asApiError, body } from "../api/client";
import { keys } from "../api/queries";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Said, Text } from "./basics";
import { Icon } from "./icons";
import { Check } from "./settings/parts";

const words: Record<string, string> = { PASSED: "passed", FAILED: "failed", SKIPPED: "skipped", RUNNING: "running" };

/** One click that proves the connection from end to end, and a report to share. */
export function Prove() {
  const { ws, adminOnly } = usePlace();
  const [writeStatus, setWriteStatus] = useState(false);
  const prove = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/integrations/bitbucket:prove", {
          params: { path: { workspace: ws } },
          body: { writeStatus },
        }),
      ),
  });
  // How far it is, while it runs.
  const progress = useQuery({
    queryKey: [...keys.kind(ws, "integration"), "proof", prove.submittedAt],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/integrations/bitbucket/proof", {
          params: { path: { workspace: ws } },
          signal,
        }),
      ),
    enabled: prove.isPending,
    refetchInterval: 500,
    retry: false,
  });
  const copy = useMutation({ mutationFn: (text: string) => navigator.clipboard.writeText(text) });
  const report = prove.isPending ? (progress.data?.running ? progress.data : undefined) : prove.data;
  const ended = report?.checks.filter((c) => c.state !== "RUNNING").length ?? 0;
  return (
    <section aria-labelledby="prove">
      <h4 id="prove">Prove it</h4>
      <p>Checks scopes, rights, clock, disk, git and a signed delivery to ourselves. It takes up to 25 seconds.</p>
      <Check
        label="Write a commit status too"
        checked={writeStatus}
        onChange={setWriteStatus}
        hint="It shows at Bitbucket. Without it nothing is changed there."
      />
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
        {report !== undefined && !prove.isPending && (
          <Button onClick={() => copy.mutate(report.text)}>{copy.isSuccess ? "Copied" : "Copy report"}</Button>
        )}
      </div>
      {prove.isError && <Failed error={asApiError(prove.error)} title="It was not checked." />}
      {report !== undefined && (
        <>
          {prove.isPending ? (
            <p className="soft">
              {ended} of {report.checks.length} checks have ended.
            </p>
          ) : (
            <p role="status" className={report.passed ? "tone-good" : "tone-bad"}>
              <Icon name={report.passed ? "done" : "failed"} />{" "}
              {report.passed ? "Whatever was checked is as it should be." : "Something is not as it should be."}
            </p>
          )}
          <ul className="rows" aria-label="Checks">
            {report.checks.map((c) => (
              <li key={c.name}>
                <span className={c.state === "PASSED" ? "tone-good" : c.state === "FAILED" ? "tone-bad" : "soft"}>
                  {(c.state === "PASSED" || c.state === "FAILED") && (
                    <Icon name={c.state === "PASSED" ? "done" : "failed"} />
                  )}
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
                <span className="soft nowrap">
                  {c.state === "PASSED" || c.state === "FAILED" ? `${c.durationMillis} ms` : ""}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
