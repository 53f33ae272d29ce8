import { useState } from "react";
import { asApiError, type App, type Variable } from "../../api/client";
import { kept, nameProblem, variableKey, variableLabel, type VariableInput } from "../../lib/variables";
import { isPattern } from "../../lib/text";
import { usePlace } from "../../lib/workspace";
import { Button, Failed, Text, Time } from "../basics";
import { Dialog } from "../dialog";
import { FormDialog } from "../unsaved";
import { Check, FromCode, SaveRow, TextField } from "./parts";
import { PasteDialog } from "./paste-variables";
import { lines, useDraft, useSave } from "./save";

/** The variables that deployment hooks see; secret values go in and never come out. */
export function Variables({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const save = useSave(app);
  const [editing, setEditing] = useState<{ variable: Variable; before: string | undefined }>();
  const [pasting, setPasting] = useState(false);
  const [removing, setRemoving] = useState<Variable>();
  const rest = (without: string | undefined) => app.variables.filter((v) => variableKey(v) !== without).map(kept);
  const perBranch = isPattern(app.branch) || app.variables.some((v) => (v.branches ?? "") !== "");
  return (
    <section className="card" aria-labelledby="variables">
      <h2 id="variables">Variables</h2>
      <p className="soft">
        Deployment hooks see them beside Devpilot's own
        {perBranch ? "; one may have a value of its own for some branches" : ""}. Secret ones are stored encrypted,
        masked in logs and never shown again.
      </p>
      {save.isError && editing === undefined && !pasting && (
        <Failed error={save.error} workspace={ws} title="The variables were not changed." />
      )}
      {app.variables.length === 0 ? (
        <p>No variables yet.</p>
      ) : (
        <ul className="hooks" aria-label="Variables">
          {app.variables.map((v) => (
            <li key={variableKey(v)}>
              <div className="grow">
                <code>{v.name}</code>
                {(v.branches ?? "") !== "" && (
                  <span className="soft">
                    {" "}
                    on <code>{v.branches}</code>
                  </span>
                )}
                {v.secret && <span className="tag">secret</span>}
                <div>
                  {v.secret ? (
                    <span className="soft">
                      set <Time at={v.updateTime} />
                    </span>
                  ) : (
                    <code className="soft">
                      <Text>{v.value}</Text>
                    </code>
                  )}
                </div>
              </div>
              <div className="actions">
                <Button
                  className="small"
                  forbidden={adminOnly}
                  onClick={() => {
                    save.reset();
                    setEditing({ variable: v, before: variableKey(v) });
                  }}
                >
                  {v.secret ? "Replace" : "Edit"}
                  <span className="hidden"> {variableLabel(v)}</span>
                </Button>
                <Button className="small" forbidden={adminOnly} onClick={() => setRemoving(v)}>
                  Remove<span className="hidden"> {variableLabel(v)}</span>
                </Button>
              </div>
            </li>
          ))}
        </ul>
      )}
      <div className="actions">
        <Button
          forbidden={adminOnly}
          onClick={() => {
            save.reset();
            setEditing({ variable: { name: "", secret: false, value: "" }, before: undefined });
          }}
        >
          Add a variable…
        </Button>
        <Button
          forbidden={adminOnly}
          onClick={() => {
            save.reset();
            setPasting(true);
          }}
        >
          Paste a .env…
        </Button>
      </div>
      {editing !== undefined && (
        <VariableDialog
          key={editing.before ?? ""}
          start={editing.variable}
          isNew={editing.before === undefined}
          perBranch={perBranch}
          others={app.variables.map(variableKey).filter((k) => k !== editing.before)}
          busy={save.isPending}
          refused={save.isError ? save.error : undefined}
          onClose={() => setEditing(undefined)}
          onSave={(v) => {
            const known = app.variables.some((x) => variableKey(x) === editing.before);
            const variables = known
              ? app.variables.map((x) => (variableKey(x) === editing.before ? v : kept(x)))
              : [...rest(undefined), v];
            save.mutate({ variables }, { onSuccess: () => setEditing(undefined) });
          }}
        />
      )}
      {pasting && (
        <PasteDialog
          app={app}
          busy={save.isPending}
          refused={save.isError ? save.error : undefined}
          onClose={() => setPasting(false)}
          onSave={(variables) => save.mutate({ variables }, { onSuccess: () => setPasting(false) })}
        />
      )}
      <Dialog
        alert
        title={`Remove ${removing === undefined ? "" : variableLabel(removing)}?`}
        open={removing !== undefined}
        onClose={() => setRemoving(undefined)}
      >
        <p>Deployments that start from now on no longer have it. Its value is gone for good.</p>
        <div className="actions end">
          <Button autoFocus onClick={() => setRemoving(undefined)}>
            Keep it
          </Button>
          <Button
            look="danger"
            busy={save.isPending}
            onClick={() =>
              save.mutate(
                { variables: rest(removing === undefined ? undefined : variableKey(removing)) },
                { onSettled: () => setRemoving(undefined) },
              )
            }
          >
            Remove the variable
          </Button>
        </div>
      </Dialog>
    </section>
  );
}

interface VariableDialogProps {
  start: Variable;
  isNew: boolean;
  /** Whether values for some branches alone make sense: the app watches a pattern. */
  perBranch: boolean;
  others: readonly string[];
  busy: boolean;
  refused: unknown;
  onClose: () => void;
  onSave: (v: VariableInput) => void;
}

function VariableDialog({ start, isNew, perBranch, others, busy, refused, onClose, onSave }: VariableDialogProps) {
  const { ws } = usePlace();
  const [name, setName] = useState(start.name);
  const [value, setValue] = useState(start.value ?? "");
  const [branches, setBranches] = useState(start.branches ?? "");
  const [secret, setSecret] = useState(start.secret);
  const [tried, setTried] = useState(false);
  const at = branches.trim() === "" ? { name } : { name, branches: branches.trim() };
  const problem =
    nameProblem(name) ??
    (others.includes(variableKey(at))
      ? branches.trim() === ""
        ? "Another variable has this name."
        : "There is a value for these branches already."
      : undefined);
  const answer = refused === undefined ? undefined : asApiError(refused);
  const missing = secret && value === "" && (isNew || !start.secret) ? "Give it a value." : undefined;
  return (
    <FormDialog
      title={isNew ? "Add a variable" : start.secret ? `Replace ${start.name}` : `Edit ${start.name}`}
      onClose={onClose}
    >
      <form
        noValidate
        onSubmit={(e) => {
          e.preventDefault();
          setTried(true);
          if (problem !== undefined || missing !== undefined) return;
          onSave(secret && value === "" ? { ...at, secret } : { ...at, secret, value });
        }}
      >
        {/* The stored value of a secret belongs to its name: it could not move to another one. */}
        <TextField
          label="Name"
          code
          value={name}
          onChange={setName}
          autoFocus={isNew}
          disabled={!isNew}
          error={(tried ? problem : undefined) ?? answer?.field("name")}
          hint="Such as NODE_ENV."
        />
        {perBranch && (
          <TextField
            label="Only on branches"
            code
            value={branches}
            onChange={setBranches}
            disabled={!isNew}
            error={answer?.field("branches")}
            hint={
              <>
                A name or a pattern such as <code>release/*</code>; empty: all branches. The branch’s own name wins,
                then the first pattern of the list that matches, then the value for all.
              </>
            }
          />
        )}
        <TextField
          label="Value"
          code
          type={secret ? "password" : "text"}
          autoFocus={!isNew}
          value={value}
          onChange={setValue}
          error={(tried ? missing : undefined) ?? answer?.field("value")}
          hint={start.secret ? "The stored value cannot be shown. Empty keeps it." : undefined}
        />
        <Check
          label="Secret"
          checked={secret}
          disabled={start.secret}
          onChange={setSecret}
          hint={
            start.secret
              ? "A secret stays one; remove it to have a plain one."
              : "Stored encrypted, masked in logs, never shown again."
          }
        />
        {answer !== undefined &&
          answer.field("name") === undefined &&
          answer.field("value") === undefined &&
          answer.field("branches") === undefined && (
            <Failed error={refused} workspace={ws} title="The variable was not saved." />
          )}
        <div className="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="primary" busy={busy}>
            {busy ? "Saving…" : "Save the variable"}
          </Button>
        </div>
      </form>
    </FormDialog>
  );
}

/** Paths that outlive a release. */
export function SharedPaths({ app }: { app: App }) {
  const { adminOnly } = usePlace();
  const save = useSave(app);
  const draft = useDraft(app.sharedPaths.join("\n"));
  const refused = save.isError ? asApiError(save.error).field("sharedPaths") : undefined;
  return (
    <form
      className="card"
      noValidate
      aria-labelledby="shared"
      onSubmit={(e) => {
        e.preventDefault();
        if (adminOnly === undefined && draft.changed) save.mutate({ sharedPaths: lines(draft.draft) });
      }}
    >
      <h2 id="shared">Shared paths</h2>
      <FromCode fields={app.codeConfig?.fields} name="sharedPaths" path={app.codeConfig?.path} />
      <TextField
        label="Paths, one a line"
        rows={3}
        code
        value={draft.draft}
        onChange={draft.set}
        disabled={adminOnly !== undefined}
        error={refused}
        hint={
          <>
            They outlive a release: all releases share them. A directory ends in a slash, such as <code>uploads/</code>.
          </>
        }
      />
      <SaveRow draft={draft} save={save} hint="Counts from the next deployment on." />
    </form>
  );
}
