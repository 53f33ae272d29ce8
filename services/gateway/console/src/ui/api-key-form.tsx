import { useRef, useState } from "react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, requestId, type ApiKeyScope } from "../api/client";
import { keys } from "../api/queries";
import { serverNow } from "../lib/clock";
import { expiry, lifeWords, type Life } from "../lib/expiry";
import { scopeWords } from "../lib/people";
import { usePlace } from "../lib/workspace";
import { AppsChoice } from "./apps-choice";
import { Banner, Button, Failed, Time } from "./basics";
import { TextField } from "./settings/parts";

/** Makes a key and hands its secret on. */
export function ApiKeyForm({ onDone, onCancel }: { onDone: (secret: string) => void; onCancel: () => void }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const [label, setLabel] = useState("");
  const [scope, setScope] = useState<ApiKeyScope>("DEPLOY");
  const [only, setOnly] = useState<ReadonlySet<string>>(new Set());
  const [life, setLife] = useState<Life>("90");
  const [day, setDay] = useState("");
  const [opened] = useState(serverNow);
  const requests = useRef(new Map<string, string>());
  const end = expiry(life, day, opened);
  const make = useMutation({
    mutationFn: async () => {
      const wanted = {
        label,
        scope,
        apps: [...only].sort(),
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
      <AppsChoice all="the whole workspace" most={20} chosen={only} onChange={setOnly} error={problem?.field("apps")} />
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
