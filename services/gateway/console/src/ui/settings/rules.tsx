import { useId, useState } from "react";
import { useMutation } from "@tanstack/react-query";
import { api, asApiError, body, type App, type CheckPush } from "../../api/client";
import { isPattern } from "../../lib/text";
import { sentence, watched } from "../../lib/words";
import { usePlace } from "../../lib/workspace";
import { Button, Failed, Said, Text } from "../basics";
import { FromCode, SaveRow, TextField } from "./parts";
import { lines, useDraft, useSave } from "./save";
import { Icon } from "../icons";

const usualPhrases = ["[skip deploy]", "[deploy skip]", "[skip ci]", "[ci skip]"];

/** Which pushes deploy, beyond the branch, and a place to try it. */
export default function Rules({ app }: { app: App }) {
  const { adminOnly } = usePlace();
  const save = useSave(app);
  const r = app.rules;
  const draft = useDraft({
    paths: (r?.paths ?? []).join("\n"),
    pathsIgnore: (r?.pathsIgnore ?? []).join("\n"),
    phrases: (r?.skip?.phrases ?? usualPhrases).join("\n"),
    tags: (r?.tags ?? []).join("\n"),
  });
  const d = draft.draft;
  const rules = {
    paths: lines(d.paths),
    pathsIgnore: lines(d.pathsIgnore),
    skip: { phrases: lines(d.phrases) },
    tags: lines(d.tags),
  };
  const refused = save.isError ? asApiError(save.error) : undefined;
  const off = adminOnly !== undefined;
  return (
    <>
      <form
        className="card"
        noValidate
        aria-labelledby="rules"
        onSubmit={(e) => {
          e.preventDefault();
          if (!off && draft.changed) save.mutate({ rules });
        }}
      >
        <h2 id="rules">Which pushes deploy</h2>
        <p className="soft">
          Pushes to <Text>{watched(app.branch)}</Text> do, and of those what the rules let through. A push that a rule
          turns away is listed under Deliveries with the reason.
        </p>
        <FromCode fields={app.codeConfig?.fields} name="rules" path={app.codeConfig?.path} />
        <TextField
          label="Only when one of these paths changed, one a line"
          rows={3}
          code
          disabled={off}
          value={d.paths}
          onChange={(paths) => draft.set({ ...d, paths })}
          error={refused?.field("paths")}
          hint={
            <>
              Patterns such as <code>services/web/**</code>. Empty: any path.
            </>
          }
        />
        <TextField
          label="Paths that do not count, one a line"
          rows={3}
          code
          disabled={off}
          value={d.pathsIgnore}
          onChange={(pathsIgnore) => draft.set({ ...d, pathsIgnore })}
          error={refused?.field("pathsIgnore")}
          hint={
            <>
              Such as <code>docs/**</code> or <code>**/*.md</code>.
            </>
          }
        />
        <TextField
          label="Skip phrases, one a line"
          rows={4}
          code
          disabled={off}
          value={d.phrases}
          onChange={(phrases) => draft.set({ ...d, phrases })}
          error={refused?.field("phrases")}
          hint="A push whose newest commit's message has one does not deploy. Case does not matter."
        />
        <TextField
          label="Tags that deploy, one a line"
          rows={2}
          code
          disabled={off}
          value={d.tags}
          onChange={(tags) => draft.set({ ...d, tags })}
          error={refused?.field("tags")}
          hint={
            <>
              Patterns such as <code>v*</code>. Empty: none.
            </>
          }
        />
        <SaveRow draft={draft} save={save} hint="Counts from the next push on." />
      </form>
      <TryPush app={app} rules={rules} unsaved={draft.changed} />
    </>
  );
}

/** Would this push deploy? Asked with the rules as they stand in the form. */
function TryPush({ app, rules, unsaved }: { app: App; rules: object; unsaved: boolean }) {
  const { ws } = usePlace();
  const id = useId();
  const [kind, setKind] = useState<"branch" | "tag">("branch");
  const [ref, setRef] = useState(isPattern(app.branch) ? "" : app.branch);
  const [message, setMessage] = useState("");
  const [paths, setPaths] = useState("");
  const ask = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/apps/{app}:checkPush", {
          params: { path: { workspace: ws, app: app.id } },
          body: {
            ...(kind === "branch" ? { branch: ref.trim() } : { tag: ref.trim() }),
            message,
            changedPaths: lines(paths),
            rules,
          },
        }),
      ),
  });
  return (
    <form
      className="card"
      noValidate
      aria-labelledby={`${id}-h`}
      onSubmit={(e) => {
        e.preventDefault();
        if (ref.trim() !== "") ask.mutate();
      }}
    >
      <h2 id={`${id}-h`}>Would this push deploy?</h2>
      <p className="soft">
        {unsaved ? "Asked with the rules as they stand above, not saved yet." : "Asked with the saved rules."} Nothing
        is deployed.
      </p>
      <div className="inline-field">
        <label htmlFor={`${id}-k`}>A push to</label>
        <select id={`${id}-k`} value={kind} onChange={(e) => setKind(e.target.value as "branch" | "tag")}>
          <option value="branch">the branch</option>
          <option value="tag">the tag</option>
        </select>
        <input
          aria-label={kind === "branch" ? "Name of the branch" : "Name of the tag"}
          className="code"
          spellCheck={false}
          autoComplete="off"
          value={ref}
          placeholder={kind === "branch" ? "main" : "v1.2.0"}
          onChange={(e) => setRef(e.target.value)}
        />
      </div>
      <TextField label="Message of the newest commit" value={message} onChange={setMessage} />
      <TextField label="Changed paths, one a line" rows={3} code value={paths} onChange={setPaths} />
      <div className="actions end">
        <Button
          type="submit"
          busy={ask.isPending}
          {...(ref.trim() === "" ? { forbidden: `Name a ${kind} first.` } : {})}
        >
          {ask.isPending ? "Asking…" : "Check"}
        </Button>
      </div>
      {ask.isError && <Failed error={ask.error} workspace={ws} />}
      {ask.data !== undefined && <Answer answer={ask.data} />}
    </form>
  );
}

function Answer({ answer }: { answer: CheckPush }) {
  return (
    <div role="status" className={`answer tone-${answer.deploys ? "good" : "warn"}`}>
      <p>
        <strong>
          <Icon name={answer.deploys ? "done" : "stopped"} />{" "}
          {answer.deploys ? "This push would deploy." : "This push would not deploy."}
        </strong>{" "}
        <span className="plain">
          <Said>{answer.message}</Said>
        </span>
      </p>
      <ul className="checks">
        {answer.checks.map((c) => (
          <li key={c.rule} className={c.passed ? "tone-good" : "tone-warn"}>
            <Icon name={c.passed ? "done" : "stopped"} />
            <span className="plain">
              {sentence(c.rule)}: <Said>{c.message}</Said>
              <span className="hidden">{c.passed ? " (passed)" : " (turned away)"}</span>
            </span>
          </li>
        ))}
        {answer.notes.map((n) => (
          <li key={n} className="soft">
            <Text>{n}</Text>
          </li>
        ))}
      </ul>
    </div>
  );
}
