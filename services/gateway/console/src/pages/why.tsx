import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import { api, body, type Explanation, type ExplanationStep, type Remedy } from "../api/client";
import { keys, whyQuery } from "../api/queries";
import { shortHash } from "../lib/text";
import {
  actionWords,
  everywhere,
  linkWord,
  opening,
  questionOf,
  remedyPath,
  stepLook,
  tone,
  whyAbout,
  type About,
  type Question,
} from "../lib/why";
import { usePlace } from "../lib/workspace";
import { Button, Failed, PageTitle, Said, Skeleton, Status, Text, Time, useTitle } from "../ui/basics";
import { Icon } from "../ui/icons";

/** One question: why did it not deploy? The answer in one sentence, what mends it, and the chain of links. */
export default function Why() {
  const { ws } = usePlace();
  const [params, setParams] = useSearchParams();
  const question = questionOf(params);
  useTitle("Why?");
  return (
    <>
      <PageTitle>Why did it not deploy?</PageTitle>
      <p className="soft">
        Ask about a commit, a branch, a deployment or a delivery; paste the request id that Bitbucket shows where it
        says that it delivered.
      </p>
      <Ask
        key={params.toString()}
        asked={question}
        onAsk={(q) => setParams(q.app === "" ? { [q.about]: q.value } : { [q.about]: q.value, app: q.app })}
      />
      {question !== undefined && <Answer ws={ws} question={question} />}
    </>
  );
}

function Ask({ asked, onAsk }: { asked: Question | undefined; onAsk: (q: Question) => void }) {
  const [about, setAbout] = useState<About>(asked?.about ?? "commit");
  const [value, setValue] = useState(asked?.value ?? "");
  const [app, setApp] = useState(asked?.app ?? "");
  const hint = whyAbout.find(([name]) => name === about)?.[2];
  return (
    <form
      className="filters fields"
      role="search"
      aria-label="Why"
      onSubmit={(e) => {
        e.preventDefault();
        if (value.trim() !== "") onAsk({ about, value: value.trim(), app: app.trim() });
      }}
    >
      <label>
        About{" "}
        <select value={about} onChange={(e) => setAbout(whyAbout.find(([n]) => n === e.target.value)?.[0] ?? "commit")}>
          {whyAbout.map(([name, word]) => (
            <option key={name} value={name}>
              {word}
            </option>
          ))}
        </select>
      </label>
      <label>
        Which <input value={value} placeholder={hint} onChange={(e) => setValue(e.target.value)} />
      </label>
      <label>
        App <input value={app} onChange={(e) => setApp(e.target.value)} />
      </label>
      <Button look="primary" type="submit">
        Ask
      </Button>
    </form>
  );
}

function Answer({ ws, question }: { ws: string; question: Question }) {
  const answer = useQuery(whyQuery(ws, question));
  if (answer.isPending) return <Skeleton rows={6} />;
  if (answer.isError) {
    return <Failed error={answer.error} workspace={ws} title="No answer." retry={() => void answer.refetch()} />;
  }
  return <Explained ws={ws} explanation={answer.data} again={() => void answer.refetch()} />;
}

/** An answer: what is so, why, what mends it, and the chain of links. */
export function Explained({ ws, explanation: e, again }: { ws: string; explanation: Explanation; again: () => void }) {
  const [first, more] = opening(e.message);
  return (
    <section className={`standing why tone-${tone(e)}`} aria-label="The answer">
      <div>
        <h2>
          <Said>{first}</Said>
        </h2>
        {more !== "" && (
          <p>
            <Said>{more}</Said>
          </p>
        )}
        <About ws={ws} explanation={e} />
        <div className="actions">
          {e.remedy !== undefined && <Mend remedy={e.remedy} />}
          {e.remedy === undefined && e.reason !== undefined && !everywhere(e) && (
            <Button onClick={again}>Ask again</Button>
          )}
        </div>
      </div>
      {e.apps.length > 1 && (
        <div>
          <h3>Each app</h3>
          <ul className="rows">
            {e.apps.map((a) => (
              <li key={a.app}>
                <span className={a.live ? "tone-good" : "tone-warn"}>
                  <Icon name={a.live ? "done" : "alert"} />
                </span>
                <div className="grow">
                  <strong>
                    {a.deleted ? <Text>{a.app}</Text> : <Link to={`/w/${ws}/apps/${a.app}`}>{a.app}</Link>}
                  </strong>{" "}
                  <Said>{a.message}</Said>
                </div>
                {a.remedy !== undefined && <Mend remedy={a.remedy} />}
              </li>
            ))}
          </ul>
        </div>
      )}
      <div>
        <h3>What happened</h3>
        <ol className="rows" aria-label="What happened">
          {e.steps.map((s, i) => (
            <Step key={i} ws={ws} step={s} />
          ))}
        </ol>
        {e.limits.map((l) => (
          <p key={l} className="soft">
            <Text>{l}</Text>
          </p>
        ))}
      </div>
    </section>
  );
}

/** What the answer is about. */
function About({ ws, explanation: e }: { ws: string; explanation: Explanation }) {
  const where = e.tag === undefined ? e.branch : `tag ${e.tag}`;
  if (e.commit === undefined && where === undefined && e.repositoryFullName === undefined) return null;
  return (
    <p className="soft">
      {e.commit !== undefined && (
        <>
          <code>{shortHash(e.commit)}</code>{" "}
        </>
      )}
      {where !== undefined && (
        <>
          on <Text>{where}</Text>{" "}
        </>
      )}
      {e.repositoryFullName !== undefined && (
        <>
          of <Text>{e.repositoryFullName}</Text>
        </>
      )}
      {e.apps.length === 1 && e.apps[0]?.deleted === false && (
        <>
          {" "}
          in <Link to={`/w/${ws}/apps/${e.apps[0].app}`}>{e.apps[0].app}</Link>
        </>
      )}
    </p>
  );
}

function Step({ ws, step: s }: { ws: string; step: ExplanationStep }) {
  return (
    <li>
      <Status look={stepLook(s)} />
      <div className="grow">
        <strong>{linkWord(s)}</strong>
        {s.app !== undefined && s.deployment !== undefined && (
          <>
            {" "}
            <Link to={`/w/${ws}/apps/${s.app}/deployments/${s.deployment}`}>
              {s.app} #{s.deployment}
            </Link>
          </>
        )}
        {s.app !== undefined && s.deployment === undefined && <span className="soft"> {s.app}</span>}
        <div>
          <Said>{s.message}</Said>
        </div>
      </div>
      <span className="soft nowrap">{s.time !== undefined && <Time at={s.time} />}</span>
    </li>
  );
}

/** What mends it: a button, or the way to the page where it is done. */
function Mend({ remedy: r }: { remedy: Remedy }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const mend = useMutation({
    mutationFn: () => perform(ws, r),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.workspace(ws) }),
  });
  const path = remedyPath(ws, r);
  if (path !== undefined && r.obstacle !== undefined) {
    return (
      <span className="soft">
        {path.word}: <Text>{r.obstacle}</Text>
      </span>
    );
  }
  if (path !== undefined) {
    return (
      <Link className="button plain" to={path.to}>
        {path.word}
      </Link>
    );
  }
  const words = actionWords(r);
  if (words === undefined) return null;
  return (
    <>
      <Button forbidden={r.obstacle} busy={mend.isPending} onClick={() => mend.mutate()}>
        {mend.isPending ? words[1] : words[0]}
        {r.app !== undefined && <span className="hidden"> of {r.app}</span>}
      </Button>
      {mend.isSuccess && (
        <span role="status" className="tone-good">
          <Icon name="done" /> Done.
        </span>
      )}
      {mend.isError && <Failed error={mend.error} workspace={ws} title="It is as it was." />}
    </>
  );
}

/** Does a remedy that needs nothing more from the person. */
async function perform(ws: string, r: Remedy): Promise<void> {
  const hook = { path: { workspace: ws, webhook: r.webhook ?? "" } };
  const app = { path: { workspace: ws, app: r.app ?? "" } };
  switch (r.kind) {
    case "REGISTER_WEBHOOK":
      body(await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:register", { params: hook, body: {} }));
      return;
    case "REPAIR_WEBHOOK":
      body(await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}:repair", { params: hook, body: {} }));
      return;
    case "SWITCH_AUTO_DEPLOY_ON":
      body(await api.PATCH("/v1/workspaces/{workspace}/apps/{app}", { params: app, body: { autoDeploy: true } }));
      return;
    case "DEPLOY":
      body(
        await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", {
          params: app,
          body: {},
        }),
      );
      return;
    case "REDEPLOY":
      body(
        await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}:redeploy", {
          params: { path: { ...app.path, number: r.deployment ?? 0 } },
          body: {},
        }),
      );
      return;
    case "REPLAY_DELIVERY":
      body(
        await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}/deliveries/{delivery}:replay", {
          params: { path: { ...hook.path, delivery: r.delivery ?? 0 } },
          body: {},
        }),
      );
      return;
  }
}
