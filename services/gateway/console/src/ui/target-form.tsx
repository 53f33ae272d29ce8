import { useState } from "react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, type NotificationTarget } from "../api/client";
import { keys } from "../api/queries";
import { choosable, eventWords, kindWords } from "../lib/notifications";
import { usePlace } from "../lib/workspace";
import { AppsChoice, Choice, toggled } from "./apps-choice";
import { Banner, Button, Failed } from "./basics";
import { same } from "../lib/draft";
import { Check, Moved, TextField } from "./settings/parts";
import { Typed } from "./unsaved";

interface Props {
  target?: NotificationTarget;
  emailAvailable: boolean;
  onDone: (secret: string | undefined) => void;
  onCancel: () => void;
}

const words = (text: string) => text.split(/[\s,;]+/).filter((w) => w !== "");

/** What a person can change of a target, but for the URL, which is not shown. */
const changeable = (t: NotificationTarget) => [
  t.label,
  t.active,
  t.recipients,
  t.events,
  t.apps,
  t.behindMinutes,
  t.quietHours,
];

/** Adds a target, or changes one. */
export function TargetForm(props: Props) {
  const [round, setRound] = useState(0);
  return <Fields key={round} {...props} onAnew={() => setRound(round + 1)} />;
}

function Fields({ target: t, emailAvailable, onDone, onCancel, onAnew }: Props & { onAnew: () => void }) {
  const { ws } = usePlace();
  const [opened] = useState(t);
  const moved = t !== undefined && opened !== undefined && !same(changeable(t), changeable(opened));
  const client = useQueryClient();
  const [kind, setKind] = useState<NotificationTarget["kind"]>(t?.kind ?? "WEBHOOK");
  const [label, setLabel] = useState(t?.label ?? "");
  const [active, setActive] = useState(t?.active ?? true);
  const [url, setUrl] = useState("");
  const [recipients, setRecipients] = useState(t?.recipients.join("\n") ?? "");
  const [events, setEvents] = useState(
    () => new Set(t?.events ?? ["DEPLOYMENT_FAILED", "DEPLOYMENT_RECOVERED", "CONNECTION"]),
  );
  const [only, setOnly] = useState<ReadonlySet<string>>(() => new Set(t?.apps));
  const [behind, setBehind] = useState(String(t?.behindMinutes ?? 30));
  const [start, setStart] = useState(t?.quietHours?.start ?? "");
  const [end, setEnd] = useState(t?.quietHours?.end ?? "");
  const [zone, setZone] = useState(t?.quietHours?.timeZone ?? Intl.DateTimeFormat().resolvedOptions().timeZone);
  const save = useMutation({
    mutationFn: async () => {
      const quiet = start !== "" || end !== "";
      const shared = {
        label,
        active,
        events: choosable.filter((e) => events.has(e)),
        apps: [...only].sort(),
        behindMinutes: Number(behind),
        quietHours: quiet ? { start, end, timeZone: zone } : { start: "", end: "", timeZone: "" },
        ...(kind === "EMAIL" ? { recipients: words(recipients) } : url === "" ? {} : { url }),
      };
      if (t === undefined)
        return body(
          await api.POST("/v1/workspaces/{workspace}/notificationTargets", {
            params: { path: { workspace: ws } },
            body: { target: { ...shared, kind } },
          }),
        ).secret;
      body(
        await api.PATCH("/v1/workspaces/{workspace}/notificationTargets/{target}", {
          params: { path: { workspace: ws, target: t.id } },
          body: { ...shared, etag: t.etag },
        }),
      );
      return undefined;
    },
    onSuccess: (secret) => {
      void client.invalidateQueries({ queryKey: keys.kind(ws, "notifications") });
      onDone(secret);
    },
    onError: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "notifications") }),
  });
  const problem = save.isError ? asApiError(save.error) : undefined;
  const wrong = (name: string) => problem?.field(name);
  return (
    <Typed>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          save.mutate();
        }}
      >
        {t === undefined && (
          <fieldset className="plain">
            <legend>How</legend>
            {(["WEBHOOK", "SLACK", "EMAIL"] as const).map((k) => (
              <label key={k} className="check">
                <input
                  type="radio"
                  name="kind"
                  checked={kind === k}
                  disabled={k === "EMAIL" && !emailAvailable}
                  onChange={() => setKind(k)}
                />{" "}
                {kindWords[k]}
              </label>
            ))}
            {!emailAvailable && <p className="soft">E-mail needs a mail server, which an operator names.</p>}
          </fieldset>
        )}
        <TextField
          label="Name"
          value={label}
          onChange={setLabel}
          error={wrong("label")}
          hint="Who or what gets them."
        />
        {kind === "EMAIL" ? (
          <TextField
            label="Addresses"
            rows={3}
            value={recipients}
            onChange={setRecipients}
            error={wrong("recipients")}
            hint="One on each line."
          />
        ) : (
          <TextField
            label="URL"
            type="password"
            value={url}
            onChange={setUrl}
            error={wrong("url")}
            hint={
              t === undefined
                ? "https://… It is kept as a secret and not shown again."
                : "Leave it empty to keep the one there is."
            }
          />
        )}
        <Choice legend="What" error={wrong("events")}>
          {choosable.map((e) => (
            <Check
              key={e}
              label={eventWords[e]}
              checked={events.has(e)}
              onChange={(on) => setEvents(toggled(events, e, on))}
            />
          ))}
        </Choice>
        {events.has("APP_BEHIND") && (
          <TextField
            label="Minutes until a push counts as not live for long"
            short
            numeric
            value={behind}
            onChange={setBehind}
            error={wrong("behindMinutes")}
          />
        )}
        <AppsChoice all="all" most={200} chosen={only} onChange={setOnly} error={wrong("apps")} />
        <Choice legend="Quiet hours" error={wrong("quietHours")}>
          <TextField label="From" short placeholder="22:00" value={start} onChange={setStart} error={wrong("start")} />
          <TextField label="To" short placeholder="07:00" value={end} onChange={setEnd} error={wrong("end")} />
          <TextField
            label="Time zone"
            value={zone}
            onChange={setZone}
            error={wrong("timeZone")}
            hint="What happens in them is sent together afterwards. Leave the times empty for none."
          />
        </Choice>
        {t !== undefined && (
          <Check
            label="Send"
            checked={active}
            onChange={setActive}
            hint="Off: nothing is sent, and what waits is dropped."
          />
        )}
        <Moved draft={{ moved, reset: onAnew }} />
        {problem !== undefined &&
          (problem.fields.length > 0 ? (
            <Banner role="alert" tone="bad" title="Nothing was saved: correct the fields that are marked." />
          ) : (
            <Failed error={problem} title="Nothing was saved." />
          ))}
        <div className="actions end">
          <Button onClick={onCancel}>Cancel</Button>
          <Button look="primary" type="submit" busy={save.isPending}>
            Save
          </Button>
        </div>
      </form>
    </Typed>
  );
}
