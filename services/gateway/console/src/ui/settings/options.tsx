import { asApiError, type App } from "../../api/client";
import { shortHash } from "../../lib/text";
import { statusNotSent } from "../../lib/words";
import { usePlace } from "../../lib/workspace";
import { Banner, Said } from "../basics";
import { Check, FromCode, SaveRow, TextField } from "./parts";
import { useDraft, useSave } from "./save";

/** How the source is fetched, what is served, what Bitbucket is told, and configuration as code. */
export default function Options({ app }: { app: App }) {
  const { adminOnly } = usePlace();
  const save = useSave(app);
  const off = adminOnly !== undefined;
  const draft = useDraft({
    directory: app.source?.directory ?? "",
    fullHistory: app.source?.fullHistory ?? false,
    submodules: app.source?.submodules ?? false,
    submoduleWorkspaces: (app.source?.submoduleWorkspaces ?? []).join(" "),
    lfs: app.source?.lfs ?? false,
    serve: app.serve?.directory ?? "",
    fallback: app.serve?.fallback ?? "",
    commitStatus: app.commitStatus ?? true,
    cancelRunning: app.cancelRunning,
    configAsCode: app.configAsCode,
  });
  const d = draft.draft;
  const untold = app.warnings.find((w) => w.reason === statusNotSent);
  const refused = save.isError ? asApiError(save.error) : undefined;
  return (
    <form
      className="form"
      noValidate
      onSubmit={(e) => {
        e.preventDefault();
        if (off || !draft.changed) return;
        save.mutate({
          source: {
            directory: d.directory.trim(),
            fullHistory: d.fullHistory,
            submodules: d.submodules,
            lfs: d.lfs,
            submoduleWorkspaces: d.submoduleWorkspaces.split(/[\s,]+/).filter((w) => w !== ""),
          },
          serve: { directory: d.serve.trim(), fallback: d.fallback.trim() },
          commitStatus: d.commitStatus,
          cancelRunning: d.cancelRunning,
          configAsCode: d.configAsCode,
        });
      }}
    >
      <fieldset>
        <legend>Source</legend>
        <TextField
          label="Directory within the repository"
          code
          disabled={off}
          value={d.directory}
          onChange={(directory) => draft.set({ ...d, directory })}
          error={refused?.field("source.directory")}
          hint="Hooks run there and .devpilot.yaml stands there. Empty: the whole repository."
        />
        <Check
          label="Full history"
          disabled={off}
          checked={d.fullHistory}
          onChange={(fullHistory) => draft.set({ ...d, fullHistory })}
          hint="Fetches all commits and leaves .git in the release, for builds that ask git. Otherwise only the commit's files."
        />
        <Check
          label="Submodules"
          disabled={off}
          checked={d.submodules}
          onChange={(submodules) => draft.set({ ...d, submodules })}
          hint="Fetches those that are repositories of the same Bitbucket workspace. Whoever can push here can name any of them, and so read it."
        />
        {d.submodules && (
          <TextField
            label="Other Bitbucket workspaces for submodules"
            code
            disabled={off}
            placeholder="such as acme-libs or acme-libs/theme"
            value={d.submoduleWorkspaces}
            onChange={(submoduleWorkspaces) => draft.set({ ...d, submoduleWorkspaces })}
            error={refused?.field("source.submoduleWorkspaces")}
            hint="Opens what the connected account can read there to everybody who can push to this repository. * opens all that it can read. Empty: none."
          />
        )}
        <Check
          label="Git LFS"
          disabled={off}
          checked={d.lfs}
          onChange={(lfs) => draft.set({ ...d, lfs })}
          hint="Fetches the files that Git LFS keeps elsewhere, in place of their pointers."
        />
      </fieldset>
      <fieldset>
        <legend>Serving</legend>
        <FromCode fields={app.codeConfig?.fields} name="serve" path={app.codeConfig?.path} />
        <TextField
          label="Directory to serve"
          code
          disabled={off}
          placeholder="such as dist"
          value={d.serve}
          onChange={(serve) => draft.set({ ...d, serve })}
          error={refused?.field("serve.directory") ?? refused?.field("directory")}
          hint="Devpilot serves it under a URL of its own for each release. “.” is all of it; empty: nothing is served."
        />
        <TextField
          label="File for paths that do not exist"
          code
          disabled={off || d.serve.trim() === ""}
          placeholder="such as index.html"
          value={d.fallback}
          onChange={(fallback) => draft.set({ ...d, fallback })}
          error={refused?.field("fallback")}
          hint="For single-page apps."
        />
      </fieldset>
      <fieldset>
        <legend>Deployments</legend>
        <Check
          label="Tell Bitbucket"
          disabled={off}
          checked={d.commitStatus}
          onChange={(commitStatus) => draft.set({ ...d, commitStatus })}
          hint="Each deployment is shown on its commit as a build status."
        />
        {untold !== undefined && (
          <p className="soft">
            <Said>{untold.message}</Said>
          </p>
        )}
        <Check
          label="A newer push cancels the running deployment"
          disabled={off}
          checked={d.cancelRunning}
          onChange={(cancelRunning) => draft.set({ ...d, cancelRunning })}
          hint="Otherwise it waits until the running one has ended."
        />
      </fieldset>
      <fieldset>
        <legend>Configuration as code</legend>
        <Check
          label="Let .devpilot.yaml in the repository decide"
          disabled={off}
          checked={d.configAsCode}
          onChange={(configAsCode) => draft.set({ ...d, configAsCode })}
          hint="Hooks, rules, shared paths and serving that it names replace those set here."
        />
        {d.configAsCode && (
          <Banner tone="warn" title="Whoever can push can then run commands on the server.">
            The file's hooks run with the variables of this app, the secret ones too.
          </Banner>
        )}
        <CodeState app={app} />
      </fieldset>
      <SaveRow draft={draft} save={save} hint="Counts from the next deployment on." />
    </form>
  );
}

/** What the file said when it was read last. */
function CodeState({ app }: { app: App }) {
  const c = app.codeConfig;
  if (!app.configAsCode) return null;
  if (c === undefined) return <p className="soft">No deployment has read the file yet.</p>;
  return c.problems.length > 0 ? (
    <Banner tone="bad" title={`${c.path} does not count: it has mistakes.`}>
      Read in <code>{shortHash(c.commit)}</code>.
      <ul className="links">
        {c.problems.map((p) => (
          <li key={`${p.line}:${p.column}:${p.message}`}>
            {p.line > 0 && `Line ${p.line}, column ${p.column}: `}
            <Said>{p.message}</Said>
          </li>
        ))}
      </ul>
    </Banner>
  ) : (
    <p className="soft">
      Read in <code>{shortHash(c.commit)}</code>: it decides {c.fields.length === 0 ? "nothing" : c.fields.join(", ")}.
    </p>
  );
}
