import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, asApiError, body, type DoctorCheck, type DoctorReport } from "../api/client";
import { doctorQuery } from "../api/queries";
import { byService, checkName, stateLook, verdict } from "../lib/doctor";
import { usePlace } from "../lib/workspace";
import { Button, Failed, PageTitle, Said, Skeleton, Status, Text, Time, useTitle } from "../ui/basics";

/** How the installation is: what each of its services says of itself, for its operators. */
export default function Doctor() {
  const { ws, me } = usePlace();
  useTitle("Doctor");
  return (
    <>
      <PageTitle>Doctor</PageTitle>
      {me.operator ? (
        <Installation />
      ) : (
        <p>
          This is about the whole installation, for its operators. How your workspace reaches Bitbucket is proved under{" "}
          <Link to={`/w/${ws}/settings/integrations`}>Integrations</Link>.
        </p>
      )}
    </>
  );
}

function Installation() {
  const client = useQueryClient();
  const ask = useMutation({
    onMutate: () => client.cancelQueries({ queryKey: doctorQuery.queryKey }),
    mutationFn: async () => body(await api.POST("/v1/doctor:run", { body: {} })),
    onSuccess: (report) => client.setQueryData(doctorQuery.queryKey, report),
  });
  // How far it is, while services are being asked, from whichever page.
  const kept = useQuery({
    ...doctorQuery,
    refetchInterval: (q) => (ask.isPending || q.state.data?.running === true ? 500 : false),
  });
  const running = ask.isPending || kept.data?.running === true;
  return (
    <>
      <p className="soft">
        Every service of this installation is asked about its stores, its keys, its machine, and what it reaches. It
        takes up to 20 seconds, and nothing stays of it; <code>devpilot doctor</code> asks the same from a command line.
      </p>
      <div className="actions">
        <Button look="primary" busy={running} onClick={() => ask.mutate()}>
          {running ? "Asking…" : kept.data?.time === undefined ? "Ask" : "Ask again"}
        </Button>
      </div>
      {ask.isError && <Failed error={asApiError(ask.error)} title="The services were not asked." />}
      {kept.isPending ? (
        <Skeleton rows={6} />
      ) : kept.isError ? (
        <Failed error={kept.error} retry={() => void kept.refetch()} />
      ) : kept.data.time === undefined ? (
        <p>Nothing was asked yet.</p>
      ) : (
        <Report report={kept.data} at={kept.data.time} />
      )}
    </>
  );
}

function Report({ report, at }: { report: DoctorReport; at: string }) {
  return (
    <>
      <p role="status">
        <Status look={stateLook(report.state)} /> {verdict(report)}{" "}
        <span className="soft">
          Asked <Time at={at} />.
        </span>
      </p>
      {byService(report).map((group) => (
        <section key={group.service} aria-labelledby={`doctor-${group.service}`}>
          <h2 id={`doctor-${group.service}`}>
            <Text>{group.service}</Text>
          </h2>
          <ul className="rows" aria-label={`Checks of ${group.service}`}>
            {group.checks.map((c) => (
              <Row key={`${c.name} ${c.where ?? ""}`} check={c} />
            ))}
          </ul>
        </section>
      ))}
    </>
  );
}

const took = (ms: number) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

function Row({ check: c }: { check: DoctorCheck }) {
  return (
    <li>
      <div className="grow">
        <div>
          <Status look={stateLook(c.state)} />{" "}
          <strong>
            <Text>{checkName(c.name)}</Text>
          </strong>{" "}
          <span className="soft">
            {c.where !== undefined && (
              <>
                <Text>{c.where}</Text>,{" "}
              </>
            )}
            asked <Time at={c.time} />
            {c.state !== "RUNNING" && c.state !== "SKIPPED" && `, ${took(c.durationMillis)}`}
          </span>
        </div>
        <div>
          <Said>{c.found}</Said>
        </div>
        {c.remedy !== undefined && (
          <div className="soft">
            <Said>{c.remedy}</Said>
          </div>
        )}
      </div>
    </li>
  );
}
