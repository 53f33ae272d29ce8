import { useMemo, useState } from "react";
import { asApiError, type App } from "../../api/client";
import { becomesSecret, readPasted, withPasted, type Pasted, type VariableInput } from "../../lib/variables";
import { usePlace } from "../../lib/workspace";
import { Button, Failed, Text } from "../basics";
import { FormDialog } from "../unsaved";
import { Check, TextField } from "./parts";

interface Props {
  app: App;
  busy: boolean;
  refused: unknown;
  onClose: () => void;
  onSave: (variables: VariableInput[]) => void;
}

/** Takes a `.env` as it is: shows what it would do, and only then saves all of it at once. */
export function PasteDialog({ app, busy, refused, onClose, onSave }: Props) {
  const { ws } = usePlace();
  const [text, setText] = useState("");
  const [plain, setPlain] = useState<ReadonlySet<string>>(new Set());
  const [tried, setTried] = useState(false);
  const { rows, problems } = useMemo(() => readPasted(text, app.variables), [text, app.variables]);
  const count = rows.filter((r) => r.change !== "stays").length;
  const missing =
    problems.length > 0
      ? "Mend or remove the lines that are marked below."
      : count === 0
        ? "There is nothing to save in it."
        : undefined;
  const set = (name: string, secret: boolean) => {
    const next = new Set(plain);
    if (secret) next.delete(name);
    else next.add(name);
    setPlain(next);
  };
  return (
    <FormDialog title="Paste a .env" onClose={onClose}>
      <form
        noValidate
        onSubmit={(e) => {
          e.preventDefault();
          setTried(true);
          if (missing === undefined) onSave(withPasted(app.variables, rows, plain));
        }}
      >
        <TextField
          label="Lines such as NAME=value"
          rows={8}
          code
          autoFocus
          value={text}
          onChange={setText}
          error={
            (tried ? missing : undefined) ??
            (refused === undefined ? undefined : asApiError(refused).field("variables"))
          }
          hint="Comments, export, quotes and values of several lines are understood. $NAME is not filled in."
        />
        {(problems.length > 0 || rows.length > 0) && (
          <ul className="hooks pasted" aria-label="What was read">
            {problems.map((p) => (
              <li key={`${p.line} ${p.name ?? ""}`}>
                <div className="grow">
                  {p.name !== undefined && (
                    <code>
                      <Text>{p.name}</Text>
                    </code>
                  )}{" "}
                  <span className="tag">invalid</span>
                  <div className="field-error">
                    Line {p.line}: {p.text}
                  </div>
                </div>
              </li>
            ))}
            {rows.map((r) => (
              <Row key={r.name} row={r} secret={becomesSecret(r, plain)} onChange={(v) => set(r.name, v)} />
            ))}
          </ul>
        )}
        {refused !== undefined && asApiError(refused).field("variables") === undefined && (
          <Failed error={refused} workspace={ws} title="No variable was saved." />
        )}
        <div className="actions end">
          <span role="status" className="soft grow">
            {summary(rows, problems.length)}
          </span>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="primary" busy={busy}>
            {busy ? "Saving…" : "Save the variables"}
          </Button>
        </div>
      </form>
    </FormDialog>
  );
}

function Row({ row, secret, onChange }: { row: Pasted; secret: boolean; onChange: (secret: boolean) => void }) {
  return (
    <li>
      <div className="grow">
        <code>{row.name}</code> <span className="tag">{row.change}</span>
        <div className="soft">
          {row.change === "stays"
            ? "Has no value here: the stored one stays."
            : row.choice === "empty"
              ? "Is empty, so there is nothing to hide."
              : row.choice === "stored secret"
                ? "A secret stays one."
                : undefined}
          {row.earlier.length > 0 &&
            ` Also on line ${row.earlier.join(", ")}: the last one, on line ${row.line}, counts.`}
        </div>
      </div>
      <Check
        label={
          <>
            Secret<span className="hidden"> {row.name}</span>
          </>
        }
        checked={secret}
        disabled={row.choice !== "free"}
        onChange={onChange}
      />
    </li>
  );
}

function summary(rows: readonly Pasted[], invalid: number): string {
  const of = (change: Pasted["change"]) => rows.filter((r) => r.change === change).length;
  const parts: [number, string][] = [
    [of("new"), "new"],
    [of("replaces"), of("replaces") === 1 ? "replaces another" : "replace others"],
    [invalid, "invalid"],
  ];
  return parts
    .filter(([n]) => n > 0)
    .map(([n, word]) => `${n} ${word}`)
    .join(", ");
}
