import { useRef, useState } from "react";
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, requestId, type ApiKeyScope } from "../api/client";
import { appsQuery } from "../api/apps";
import { keys } from "../api/queries";
import { serverNow } from "../lib/clock";
import { expiry, lifeWords, type Life } from "../lib/expiry";
import { scopeWords } from "../lib/people";
import { usePlace } from "../lib/workspace";
import { Banner, Button, Failed, Time } from "./basics";
import { Check, TextField } from "./settings/parts";

const words = (text: string) => text.split(/[\s,;]+/).filter((w) => w !== "");

/** Makes a key and hands its secret on. */
export function ApiKeyForm({ onDone, onCancel }: { onDone: (secret: string) => void; onCancel: () => void }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const apps = useInfiniteQuery(appsQuery(ws));
  const [label, setLabel] = useState("");
  const [scope, setScope] = useState<ApiKeyScope>("DEPLOY");
  const [only, setOnly] = useState<ReadonlySet<string>>(new Set());
  const [typed, setTyped] = useState("");
  const [life, setLife] = useState<Life>("90");
  const [day, setDay] = useState("");
  const [opened] = useState(serverNow);
  const requests = useRef(new Map<string, string>());
  const all = apps.data?.pages.flatMap((p) => p.apps.map((a) => a.id)) ?? [];
  const end = expiry(life, day, opened);
  const make = useMutation({
    mutationFn: async () => {
      const wanted = {
        label,
        scope,
        apps: apps.hasNextPage ? words(typed) : [...only].sort(),
        ...(end === undefined ? {} : { expireTime: end }),
      };
      // The same form, sent again after its answer was lost, gets the same key; another one another.
      const asked = JSON.stringify(wanted);
      const request = requests.current.get(asked) ?? requestId();
      requests.current.set(asked, request);
      return body(
        await api.POST("/v1/workspaces/{workspace}/apiKeys", {
          params: { path: { workspace: ws } },
          body: { ...wanted, requestId: request },
        }),
      );
    },
    onSuccess: (made) => {
      void client.invalidateQueries({ queryKey: keys.kind(ws, "apiKeys") });
      onDone(made.secret);
    },
  });
  const problem = make.isError ? asApiError(make.error) : undefined;
  return (
    <form
      className="card"
      aria-label="Create an API key"
      onSubmit={(e) => {
        e.preventDefault();
        if (life !== "day" || day !== "") make.mutate();
      }}
    >
      <TextField
        label="Name"
        value={label}
        onChange={setLabel}
        error={problem?.field("label")}
        hint="What it is for, such as: CI of the shop."
      />
      <fieldset className="plain choices">
        <legend>What it may do</legend>
        {(["READ", "DEPLOY", "ADMIN"] as const).map((s) => (
          <label key={s} className="check block">
            <input type="radio" name="scope" checked={scope === s} onChange={() => setScope(s)} /> {scopeWords[s].name}{" "}
            <span className="soft">{scopeWords[s].may}</span>
          </label>
        ))}
      </fieldset>
      {apps.hasNextPage ? (
        <TextField
          label="Only these apps"
          value={typed}
          onChange={setTyped}
          error={problem?.field("apps")}
          hint="Their ids, with spaces between; at most 20. Empty: the whole workspace."
        />
      ) : (
        all.length > 0 && (
          <fieldset className="plain">
            <legend>Only these apps; none ticked: the whole workspace</legend>
            {all.map((a) => (
              <Check
                key={a}
                label={a}
                checked={only.has(a)}
                onChange={(on) => {
                  const next = new Set(only);
                  if (on) next.add(a);
                  else next.delete(a);
                  setOnly(next);
                }}
              />
            ))}
            {problem?.field("apps") !== undefined && <p className="field-error">{problem.field("apps")}</p>}
          </fieldset>
        )
      )}
      <label>
        Expires{" "}
        <select value={life} onChange={(e) => setLife(e.target.value as Life)}>
          {(Object.keys(lifeWords) as Life[]).map((l) => (
            <option key={l} value={l}>
              {lifeWords[l]}
            </option>
          ))}
        </select>
      </label>
      {life === "day" && (
        <label>
          Last day <input type="date" required value={day} onChange={(e) => setDay(e.target.value)} />
        </label>
      )}
      <p className="soft">
        {life === "never" ? (
          "It works until somebody revokes it, or its person leaves."
        ) : end === undefined ? (
          "Choose the last day on which it works."
        ) : (
          <>
            It stops working <Time at={end} style="clock" />.
          </>
        )}
      </p>
      {problem?.field("expireTime") !== undefined && <p className="field-error">{problem.field("expireTime")}</p>}
      {problem !== undefined &&
        (problem.fields.length > 0 ? (
          <Banner role="alert" tone="bad" title="No key was made: correct the fields that are marked." />
        ) : (
          <Failed error={problem} title="No key was made." />
        ))}
      <div className="actions">
        <Button look="primary" type="submit" busy={make.isPending}>
          Create key
        </Button>
        <Button onClick={onCancel}>Cancel</Button>
      </div>
    </form>
  );
}
