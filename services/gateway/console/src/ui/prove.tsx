import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, type ProofReport } from "../api/client";
import { keys } from "../api/queries";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Said, Text, Time } from "./basics";
import { Icon, type IconName } from "./icons";
import { Check } from "./settings/parts";

const words: Record<string, string> = { PASSED: "passed", FAILED: "failed", SKIPPED: "skipped", RUNNING: "running" };

const icons: Record<string, IconName> = { PASSED: "done", FAILED: "failed", SKIPPED: "skipped", RUNNING: "running" };

/** That a proof was made from this tab: after a reload its report, or how far it is, is shown again. */
const proved = (ws: string) => `devpilot.proof.${ws}`;

/** One click that proves the connection from end to end, and a report to share. */
export function Prove() {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const [writeStatus, setWriteStatus] = useState(false);
  const queryKey = [...keys.kind(ws, "integration"), "proof"];
  const prove = useMutation({
    onMutate: async () => {
      await client.cancelQueries({ queryKey });
      client.removeQueries({ queryKey });
      sessionStorage.setItem(proved(ws), "begun"); // no secret
    },
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/integrations/bitbucket:prove", {
          params: { path: { workspace: ws } },
          body: { writeStatus },
        }),
      ),
    onSuccess: (report) => client.setQueryData(queryKey, report),
  });
  // How far it is, while it runs, and what it came to.
  const kept = useQuery({
    queryKey,
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/integrations/bitbucket/proof", {
          params: { path: { workspace: ws } },
          signal,
        }),
      ),
    enabled: adminOnly === undefined && sessionStorage.getItem(proved(ws)) !== null,
    refetchInterval: (q) => (prove.isPending || q.state.data?.running === true ? 500 : false),
    retry: false,
  });
  const copy = useMutation({ mutationFn: (text: string) => navigator.clipboard.writeText(text) });
  const running = prove.isPending || kept.data?.running === true;
  // While one begins, what is kept may still be the one before it.
  const report = prove.isPending && kept.data?.running !== true ? undefined : kept.data;
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
          busy={running}
          onClick={() => {
            copy.reset();
            prove.mutate();
          }}
        >
          {running ? "Checking…" : "Prove it"}
        </Button>
        {report !== undefined && !running && (
          <Button onClick={() => copy.mutate(report.text)}>{copy.isSuccess ? "Copied" : "Copy report"}</Button>
        )}
      </div>
      {copy.isError && <p role="alert">The browser did not let the report be copied.</p>}
      {prove.isError && <Failed error={asApiError(prove.error)} title="It was not checked." />}
      {report !== undefined && <Findings report={report} />}
    </section>
  );
}

const took = (ms: number) => (ms === 0 ? "" : ms < 1000 ? ` in ${ms} ms` : ` in ${(ms / 1000).toFixed(1)} s`);

function Findings({ report }: { report: ProofReport }) {
  const ended = report.checks.filter((c) => c.state !== "RUNNING").length;
  const failed = report.checks.filter((c) => c.state === "FAILED").length;
  return (
    <>
      {report.running ? (
        <p className="soft">
          {ended} of {report.checks.length} checks have ended.
        </p>
      ) : (
        <p role="status">
          <span className={report.passed ? "tone-good" : "tone-bad"}>
            <Icon name={report.passed ? "done" : "failed"} />{" "}
            {report.passed
              ? "Whatever was checked is as it should be."
              : `${failed} of ${report.checks.length} checks failed.`}
          </span>{" "}
          <span className="soft">
            Checked <Time at={report.time} />.
          </span>
        </p>
      )}
      <ul className="rows" aria-label="Checks">
        {report.checks.map((c) => (
          <li key={c.name}>
            <span className={c.state === "PASSED" ? "tone-good" : c.state === "FAILED" ? "tone-bad" : "soft"}>
              <Icon name={icons[c.state] ?? "waiting"} />
            </span>
            <div className="grow">
              <div>
                <strong>
                  <Text>{c.name}</Text>
                </strong>{" "}
                <span className="soft">
                  {words[c.state] ?? c.state}
                  {(c.state === "PASSED" || c.state === "FAILED") && took(c.durationMillis)}
                </span>
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
          </li>
        ))}
      </ul>
    </>
  );
}
