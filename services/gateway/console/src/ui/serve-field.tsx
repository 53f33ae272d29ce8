import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { asApiError } from "../api/client";
import { branchesQuery, suggestServeQuery } from "../api/queries";
import { usePlace } from "../lib/workspace";
import { Button, Said } from "./basics";
import { Icon } from "./icons";
import { TextField } from "./settings/parts";

/**
 * The directory to serve, suggested from what the branch's head has. One look for a chosen branch; the
 * form waits for none, and says so where it could not look.
 */
export function ServeField({
  repository,
  branch,
  value,
  onChange,
  disabled,
  error,
}: {
  repository: string;
  /** "" for a pattern, which has no head to look at. */
  branch: string;
  value: string;
  onChange: (directory: string) => void;
  disabled: boolean;
  error: string | undefined;
}) {
  const { ws } = usePlace();
  // The list that the field above has loaded: it tells the branch's head without another call.
  const branches = useInfiniteQuery({ ...branchesQuery(ws, repository, ""), enabled: repository !== "" });
  const commit = branches.data?.pages.flatMap((p) => p.branches).find((b) => b.name === branch)?.commit?.hash ?? "";
  const found = useQuery({
    ...suggestServeQuery(ws, repository, commit),
    enabled: repository !== "" && branch !== "" && commit !== "",
  });
  const suggestions = found.data?.suggestions ?? [];
  return (
    <>
      <TextField
        label="Directory to serve"
        code
        value={value}
        onChange={onChange}
        disabled={disabled}
        error={error}
        hint={
          <>
            Such as <code>public</code> or <code>dist</code>; <code>.</code> is all of the repository. Each release then
            has a link of its own. Empty: nothing is served.
          </>
        }
      />
      <div role="status" aria-label="What could be served">
        {disabled || branch === "" ? null : found.isFetching ? (
          <p className="soft">Looking what the repository has to serve…</p>
        ) : found.isError ? (
          <p className="soft">
            Devpilot could not look into the repository, so it suggests nothing:{" "}
            <Said>{asApiError(found.error).message}</Said>
          </p>
        ) : found.isSuccess && suggestions.length === 0 ? (
          <p className="soft">
            Nothing to serve was found by its name: no <code>index.html</code> in the root or in a directory such as{" "}
            <code>public</code>, and no build that is known.
          </p>
        ) : (
          suggestions.slice(0, 3).map((s) => (
            <p key={s.directory} className="suggestion">
              <Said>{s.message}</Said>{" "}
              <Button
                className="small"
                aria-pressed={value.trim() === s.directory}
                onClick={() => onChange(value.trim() === s.directory ? "" : s.directory)}
              >
                {value.trim() === s.directory && <Icon name="done" />} Serve{" "}
                {s.directory === "." ? "the whole repository" : s.directory}
              </Button>
            </p>
          ))
        )}
      </div>
    </>
  );
}
