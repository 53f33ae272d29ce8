import { useRef, useState } from "react";
import { asApiError, type App, type DeploymentHook } from "../../api/client";
import { byStage, defaultTimeout, hookProblem, move, remove, replace } from "../../lib/hooks";
import { duration } from "../../lib/time";
import { stageName } from "../../lib/words";
import { usePlace } from "../../lib/workspace";
import { Banner, Button, Failed, Text } from "../basics";
import { Dialog } from "../dialog";
import { FormDialog } from "../unsaved";
import { Check, FromCode, TextField } from "./parts";
import { useSave } from "./save";
import { Icon } from "../icons";

const hookStages = [
  "PRE_EXECUTION",
  "PRE_SOURCE_CONTROL",
  "POST_SOURCE_CONTROL",
  "POST_SETUP",
  "POST_RELEASE",
] as const;

/** The commands that a deployment runs, in the order in which it runs them. */
export function Hooks({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const save = useSave(app);
  const [editing, setEditing] = useState<{ hook: DeploymentHook; before: string | undefined }>();
  const [removing, setRemoving] = useState<DeploymentHook>();
  const list = useRef<HTMLDivElement>(null);
  const ordered = byStage(app.hooks);
  const step = (hook: DeploymentHook, by: -1 | 1) => {
    save.mutate(
      { hooks: move(app.hooks, hook.name, by) },
      {
        // The list is made anew; the one who moves with the keyboard stays at the same hook.
        onSuccess: () =>
          requestAnimationFrame(() =>
            list.current
              ?.querySelector<HTMLElement>(`[data-hook="${CSS.escape(hook.name)}"][data-by="${by}"]`)
              ?.focus(),
          ),
      },
    );
  };
  return (
    <section className="card" aria-labelledby="hooks">
      <h2 id="hooks">Deployment hooks</h2>
      <p className="soft">
        Commands that each deployment runs on the server, stage by stage. One that fails ends the deployment; what is
        live stays.
      </p>
      <FromCode fields={app.codeConfig?.fields} name="hooks" path={app.codeConfig?.path} />
      {app.hookRunner === undefined && app.hooks.length > 0 && (
        <Banner tone="warn" title="The server has no runner for hooks.">
          Deployments with hooks fail there until the operator sets one up.
        </Banner>
      )}
      {save.isError && editing === undefined && (
        <Failed error={save.error} workspace={ws} title="The hooks were not changed." />
      )}
      <div ref={list}>
        {ordered.length === 0 && (
          <p>
            No hooks yet. A build such as <code>npm ci && npm run build</code> belongs to the stage “
            {stageName("POST_SOURCE_CONTROL")}”.
          </p>
        )}
        {hookStages.map((stage) => {
          const of = ordered.filter((h) => h.stage === stage);
          return (
            of.length > 0 && (
              <div key={stage}>
                <h3 className="group">{stageName(stage)}</h3>
                <ol className="hooks" aria-label={stageName(stage)}>
                  {of.map((h, i) => (
                    <li key={h.name} className={(h.active ?? true) ? undefined : "off"}>
                      <div className="grow">
                        <strong>
                          <Text>{h.name}</Text>
                        </strong>{" "}
                        <span className="soft">
                          {(h.active ?? true) ? "" : "switched off · "}at most{" "}
                          {duration((h.timeoutSeconds ?? defaultTimeout) * 1000)}
                        </span>
                        <pre className="command">
                          <Text>{h.command.split("\n").slice(0, 3).join("\n")}</Text>
                          {h.command.split("\n").length > 3 && "\n…"}
                        </pre>
                      </div>
                      <div className="actions">
                        <Button
                          className="small"
                          data-hook={h.name}
                          data-by={-1}
                          forbidden={adminOnly ?? (i === 0 ? "Already the first of its stage." : undefined)}
                          busy={save.isPending}
                          onClick={() => step(h, -1)}
                        >
                          <Icon name="up" />
                          <span className="hidden">Move {h.name} up</span>
                        </Button>
                        <Button
                          className="small"
                          data-hook={h.name}
                          data-by={1}
                          forbidden={adminOnly ?? (i === of.length - 1 ? "Already the last of its stage." : undefined)}
                          busy={save.isPending}
                          onClick={() => step(h, 1)}
                        >
                          <Icon name="down" />
                          <span className="hidden">Move {h.name} down</span>
                        </Button>
                        <Button
                          className="small"
                          forbidden={adminOnly}
                          onClick={() => setEditing({ hook: h, before: h.name })}
                        >
                          Edit<span className="hidden"> {h.name}</span>
                        </Button>
                        <Button className="small" forbidden={adminOnly} onClick={() => setRemoving(h)}>
                          Remove<span className="hidden"> {h.name}</span>
                        </Button>
                      </div>
                    </li>
                  ))}
                </ol>
              </div>
            )
          );
        })}
      </div>
      <div className="actions">
        <Button
          forbidden={adminOnly}
          onClick={() => {
            save.reset();
            setEditing({
              hook: {
                name: "",
                stage: "POST_SOURCE_CONTROL",
                command: "",
                priority: 0,
                timeoutSeconds: defaultTimeout,
                active: true,
              },
              before: undefined,
            });
          }}
        >
          Add a hook…
        </Button>
      </div>
      {editing !== undefined && (
        <HookDialog
          key={editing.before ?? ""}
          start={editing.hook}
          isNew={editing.before === undefined}
          others={app.hooks.filter((h) => h.name !== editing.before).map((h) => h.name)}
          busy={save.isPending}
          refused={save.isError ? save.error : undefined}
          onClose={() => setEditing(undefined)}
          onSave={(hook) =>
            save.mutate({ hooks: replace(app.hooks, editing.before, hook) }, { onSuccess: () => setEditing(undefined) })
          }
        />
      )}
      <Dialog
        alert
        title={`Remove the hook “${removing?.name ?? ""}”?`}
        open={removing !== undefined}
        onClose={() => setRemoving(undefined)}
      >
        <p>Deployments that start from now on no longer run it. Those that ran keep their logs.</p>
        <div className="actions end">
          <Button autoFocus onClick={() => setRemoving(undefined)}>
            Keep it
          </Button>
          <Button
            look="danger"
            busy={save.isPending}
            onClick={() =>
              removing !== undefined &&
              save.mutate({ hooks: remove(app.hooks, removing.name) }, { onSettled: () => setRemoving(undefined) })
            }
          >
            Remove the hook
          </Button>
        </div>
      </Dialog>
    </section>
  );
}

interface HookDialogProps {
  start: DeploymentHook;
  isNew: boolean;
  others: readonly string[];
  busy: boolean;
  refused: unknown;
  onClose: () => void;
  onSave: (hook: DeploymentHook) => void;
}

function HookDialog({ start, isNew, others, busy, refused, onClose, onSave }: HookDialogProps) {
  const { ws } = usePlace();
  const [hook, setHook] = useState(start);
  const [timeout, setTimeout] = useState(String(start.timeoutSeconds ?? defaultTimeout));
  const [tried, setTried] = useState(false);
  const wanted = { ...hook, name: hook.name.trim(), timeoutSeconds: Number(timeout) };
  const problem = tried ? hookProblem(wanted, others) : undefined;
  const answer = refused === undefined ? undefined : asApiError(refused);
  const said = (field: string) => (problem?.field === field ? problem.message : answer?.field(field));
  return (
    <FormDialog title={isNew ? "Add a deployment hook" : `Edit the hook “${start.name}”`} onClose={onClose}>
      <form
        noValidate
        onSubmit={(e) => {
          e.preventDefault();
          setTried(true);
          if (hookProblem(wanted, others) === undefined) onSave(wanted);
        }}
      >
        <TextField
          label="Name"
          value={hook.name}
          autoFocus
          onChange={(name) => setHook({ ...hook, name })}
          error={said("name")}
          hint="Names it in the log and in the list of stages."
        />
        <div className="field">
          <label htmlFor="hook-stage">Stage</label>
          <select
            id="hook-stage"
            value={hook.stage}
            onChange={(e) => setHook({ ...hook, stage: e.target.value as DeploymentHook["stage"] })}
          >
            {hookStages.map((s) => (
              <option key={s} value={s}>
                {stageName(s)}
              </option>
            ))}
          </select>
        </div>
        <TextField
          label="Command"
          rows={4}
          code
          value={hook.command}
          onChange={(command) => setHook({ ...hook, command })}
          error={said("command")}
          hint="Run by the shell, in the release once there is one. DEVPILOT_… variables and your own are set."
        />
        <TextField
          label="Time limit in seconds"
          short
          numeric
          value={timeout}
          onChange={setTimeout}
          error={said("timeoutSeconds")}
          hint="1 to 3600; it is ended then, and the deployment fails."
        />
        <Check
          label="Active"
          checked={hook.active ?? true}
          onChange={(active) => setHook({ ...hook, active })}
          hint="One that is switched off is shown as skipped."
        />
        {answer !== undefined && !["name", "command", "timeoutSeconds"].some((f) => answer.field(f) !== undefined) && (
          <Failed error={refused} workspace={ws} title="The hook was not saved." />
        )}
        <div className="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="primary" busy={busy}>
            {busy ? "Saving…" : "Save the hook"}
          </Button>
        </div>
      </form>
    </FormDialog>
  );
}
