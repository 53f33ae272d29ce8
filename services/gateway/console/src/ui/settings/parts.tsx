import { useId, type ReactNode } from "react";
import { usePlace } from "../../lib/workspace";
import { Banner, Button, Failed } from "../basics";
import { Unsaved } from "../unsaved";

interface Draft {
  changed: boolean;
  moved: boolean;
  reset: () => void;
}

/** The end of a form, in sight while the form is: what saving does, and the button, which is grey while there is nothing to save. */
export function SaveRow({
  draft,
  save,
  hint,
}: {
  draft: Draft;
  save: { isPending: boolean; isError: boolean; isSuccess: boolean; error: unknown };
  hint?: string;
}) {
  const { ws, adminOnly } = usePlace();
  return (
    <div className="save-bar">
      {draft.changed && <Unsaved />}
      <Moved draft={draft} />
      {save.isError && <Failed error={save.error} workspace={ws} title="Nothing was changed." />}
      <div className="actions end">
        <span role="status" className="soft">
          {draft.changed ? hint : save.isSuccess ? "Saved." : "Nothing to save."}
        </span>
        {draft.changed && !draft.moved && !save.isPending && <Button onClick={draft.reset}>Discard</Button>}
        <Button
          type="submit"
          look="primary"
          forbidden={adminOnly ?? (draft.changed ? undefined : "Nothing to save.")}
          busy={save.isPending}
        >
          {save.isPending ? "Saving…" : "Save"}
        </Button>
      </div>
    </div>
  );
}

/** Says that somebody changed what a draft is of, and what saving does then. */
export function Moved({ draft }: { draft: Pick<Draft, "moved" | "reset"> }) {
  if (!draft.moved) return null;
  return (
    <Banner
      tone="warn"
      role="status"
      title="Somebody changed this meanwhile."
      actions={<Button onClick={draft.reset}>Show what is there</Button>}
    >
      Saving puts yours in its place.
    </Banner>
  );
}

interface TextProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
  hint?: ReactNode;
  error?: string | undefined;
  rows?: number;
  code?: boolean;
  short?: boolean;
  type?: "text" | "password";
  placeholder?: string;
  disabled?: boolean;
  autoFocus?: boolean;
  numeric?: boolean;
}

/** A labelled text, of one line or of several, with what it means or what is wrong with it below. */
export function TextField({
  label,
  value,
  onChange,
  hint,
  error,
  rows,
  code = false,
  short = false,
  type = "text",
  placeholder,
  disabled = false,
  autoFocus = false,
  numeric = false,
}: TextProps) {
  const id = useId();
  const common = {
    id,
    value,
    spellCheck: false,
    autoComplete: "off",
    placeholder,
    disabled,
    autoFocus,
    className: `${code ? "code" : ""} ${short ? "short" : ""}`,
    "aria-invalid": error !== undefined || undefined,
    "aria-describedby": `${id}-d`,
  };
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {rows === undefined ? (
        <input
          {...common}
          type={type}
          inputMode={numeric ? "numeric" : undefined}
          onChange={(e) => onChange(e.target.value)}
        />
      ) : (
        <textarea {...common} rows={rows} onChange={(e) => onChange(e.target.value)} />
      )}
      <div id={`${id}-d`} className={error === undefined ? "soft" : "field-error"}>
        {error ?? hint}
      </div>
    </div>
  );
}

/** A box to tick, with what it does. */
export function Check({
  label,
  checked,
  onChange,
  hint,
  disabled = false,
}: {
  label: ReactNode;
  checked: boolean;
  onChange: (value: boolean) => void;
  hint?: ReactNode;
  disabled?: boolean;
}) {
  const id = useId();
  return (
    <div className="check-field">
      <label className="check">
        <input
          type="checkbox"
          checked={checked}
          disabled={disabled}
          aria-describedby={hint === undefined ? undefined : id}
          onChange={(e) => onChange(e.target.checked)}
        />{" "}
        {label}
      </label>
      {hint !== undefined && (
        <p id={id} className="soft">
          {hint}
        </p>
      )}
    </div>
  );
}

/** Says that the repository's own file decides, where it does. */
export function FromCode({
  fields,
  name,
  path,
}: {
  fields: readonly string[] | undefined;
  name: string;
  path: string | undefined;
}) {
  if (fields?.some((f) => f === name || f.startsWith(`${name}.`)) !== true) return null;
  return (
    <Banner tone="idle" title={`${path ?? ".devpilot.yaml"} in the repository decides here.`}>
      What is set below counts again when the file no longer says it, or configuration as code is switched off.
    </Banner>
  );
}
