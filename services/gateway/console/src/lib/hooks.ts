// The list of deployment hooks: by stage, then priority, then place in the list.
import type { DeploymentHook } from "../api/client";

const order = [
  "PRE_EXECUTION",
  "PRE_SOURCE_CONTROL",
  "SOURCE_CONTROL",
  "POST_SOURCE_CONTROL",
  "POST_SETUP",
  "RELEASE",
  "POST_RELEASE",
];

/** The hooks in the order in which they run. */
export function byStage(hooks: readonly DeploymentHook[]): DeploymentHook[] {
  return hooks.toSorted(
    (a, b) => order.indexOf(a.stage ?? "") - order.indexOf(b.stage ?? "") || a.priority - b.priority,
  ); // sorting is stable
}

/** The list with one hook a place earlier or later within its stage, whose priorities then say nothing any more. */
export function move(hooks: readonly DeploymentHook[], name: string, by: -1 | 1): DeploymentHook[] {
  const list = byStage(hooks);
  const at = list.findIndex((h) => h.name === name);
  const hook = list[at];
  const other = list[at + by];
  if (hook === undefined || other === undefined || other.stage !== hook.stage) return list;
  list[at] = other;
  list[at + by] = hook;
  return list.map((h) => (h.stage === hook.stage ? { ...h, priority: 0 } : h));
}

/** The list with a hook in place of the one that had the name; a new one comes last in its stage. */
export function replace(
  hooks: readonly DeploymentHook[],
  before: string | undefined,
  hook: DeploymentHook,
): DeploymentHook[] {
  const old = hooks.find((h) => h.name === before);
  if (old !== undefined && old.stage === hook.stage) return hooks.map((h) => (h === old ? hook : h));
  const rest = hooks.filter((h) => h !== old);
  const last = Math.max(0, ...rest.filter((h) => h.stage === hook.stage).map((h) => h.priority));
  return [...rest, { ...hook, priority: last }];
}

export function remove(hooks: readonly DeploymentHook[], name: string): DeploymentHook[] {
  return hooks.filter((h) => h.name !== name);
}

/** How long a hook may run that says nothing about it, in seconds. */
export const defaultTimeout = 600;

/** What is wrong with a hook before the server is asked. */
export function hookProblem(
  hook: DeploymentHook,
  others: readonly string[],
): { field: string; message: string } | undefined {
  if (hook.name === "") return { field: "name", message: "Give it a name." };
  if (others.includes(hook.name)) return { field: "name", message: "Another hook has this name." };
  if (hook.command.trim() === "") return { field: "command", message: "Write the command to run." };
  const timeout = hook.timeoutSeconds ?? defaultTimeout;
  if (!Number.isInteger(timeout) || timeout < 1 || timeout > 3600)
    return { field: "timeoutSeconds", message: "A whole number from 1 to 3600." };
  return undefined;
}
