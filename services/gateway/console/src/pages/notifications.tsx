import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, type NotificationTarget } from "../api/client";
import { attemptsQuery, keys, targetsQuery } from "../api/queries";
import { eventWords, kindWords } from "../lib/notifications";
import { usePlace } from "../lib/workspace";
import {
  Banner,
  Button,
  Copyable,
  Failed,
  PageTitle,
  Said,
  Skeleton,
  Status,
  Text,
  Time,
  Upcoming,
  useTitle,
} from "../ui/basics";
import { Dialog } from "../ui/dialog";
import { TargetForm } from "../ui/target-form";

/** Where a workspace hears of what happens, and what arrived there. */
export default function Notifications() {
  const { ws, adminOnly } = usePlace();
  const targets = useQuery(targetsQuery(ws));
  const [adding, setAdding] = useState(false);
  const [secret, setSecret] = useState<string>();
  useTitle("Notifications");
  const list = targets.data?.targets;
  return (
    <>
      <PageTitle
        actions={
          !adding && (
            <Button look="primary" forbidden={adminOnly} onClick={() => setAdding(true)}>
              Add
            </Button>
          )
        }
      >
        Notifications
      </PageTitle>
      <p className="soft">
        Hear of it when something happens: by a signed webhook, in Slack or by e-mail. Nothing is sent until you add
        where to.
      </p>
      {secret !== undefined && <Secret secret={secret} onClose={() => setSecret(undefined)} />}
      {adding && (
        <section className="card" aria-labelledby="new-target">
          <h2 id="new-target">New</h2>
          <TargetForm
            emailAvailable={targets.data?.emailAvailable ?? false}
            onDone={(made) => {
              setAdding(false);
              setSecret(made);
            }}
            onCancel={() => setAdding(false)}
          />
        </section>
      )}
      {targets.isPending ? (
        <Skeleton rows={4} />
      ) : list === undefined ? (
        <Failed error={targets.error} workspace={ws} retry={() => void targets.refetch()} />
      ) : list.length === 0 && !adding ? (
        <p>No notifications yet.</p>
      ) : (
        list.map((t) => <Target key={t.id} target={t} onSecret={setSecret} />)
      )}
    </>
  );
}

function Secret({ secret, onClose }: { secret: string; onClose: () => void }) {
  return (
    <Banner
      role="status"
      tone="warn"
      title="Copy the secret now: it is shown only once."
      actions={<Button onClick={onClose}>Done</Button>}
    >
      <Copyable label="Secret of the webhook" value={secret} />
      <span className="soft">
        The receiver checks Devpilot-Signature with it: HMAC-SHA256 of the time, a dot and the body.
      </span>
    </Banner>
  );
}

function Target({ target: t, onSecret }: { target: NotificationTarget; onSecret: (secret: string) => void }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const [open, setOpen] = useState<"form" | "log" | "delete">();
  const again = () => void client.invalidateQueries({ queryKey: keys.kind(ws, "notifications") });
  const path = { workspace: ws, target: t.id };
  const test = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/notificationTargets/{target}:test", { params: { path }, body: {} }),
      ),
    onSettled: again,
  });
  const rotate = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/notificationTargets/{target}:rotateSecret", {
          params: { path },
          body: {},
        }),
      ),
    onSuccess: (r) => {
      onSecret(r.secret);
      again();
    },
  });
  const failure = test.error ?? rotate.error;
  return (
    <section className="card" aria-labelledby={`target-${t.id}`}>
      <div className="card-head">
        <h2 id={`target-${t.id}`}>
          <Text>{t.label}</Text>
        </h2>
        <Status
          look={
            t.active === true ? { word: "On", tone: "good", mark: "on" } : { word: "Off", tone: "idle", mark: "off" }
          }
        />
      </div>
      <p>
        {kindWords[t.kind]}: <Text>{t.host ?? t.recipients.join(", ")}</Text>
      </p>
      <p className="soft">
        {t.events.map((e) => eventWords[e]).join(", ")}
        {t.apps.length > 0 && `; only of ${t.apps.join(", ")}`}
        {t.quietHours !== undefined &&
          `; quiet from ${t.quietHours.start ?? ""} to ${t.quietHours.end ?? ""} (${t.quietHours.timeZone ?? "UTC"})`}
        .
      </p>
      {test.data !== undefined && (
        <Banner
          role="status"
          tone={test.data.delivered ? "good" : "bad"}
          title={test.data.delivered ? "The test arrived." : "The test did not arrive."}
        >
          <Said>{test.data.message}</Said>
        </Banner>
      )}
      {failure !== null && <Failed error={asApiError(failure)} />}
      <div className="actions">
        <Button forbidden={adminOnly} busy={test.isPending} onClick={() => test.mutate()}>
          Send a test<span className="hidden"> to {t.label}</span>
        </Button>
        <Button aria-expanded={open === "log"} onClick={() => setOpen(open === "log" ? undefined : "log")}>
          Log<span className="hidden"> of {t.label}</span>
        </Button>
        <Button forbidden={adminOnly} onClick={() => setOpen("form")}>
          Change<span className="hidden"> {t.label}</span>
        </Button>
        {t.kind === "WEBHOOK" && (
          <Button forbidden={adminOnly} busy={rotate.isPending} onClick={() => rotate.mutate()}>
            Rotate secret<span className="hidden"> of {t.label}</span>
          </Button>
        )}
        <Button look="danger" forbidden={adminOnly} onClick={() => setOpen("delete")}>
          Delete<span className="hidden"> {t.label}</span>
        </Button>
      </div>
      {open === "form" && (
        <TargetForm target={t} emailAvailable onDone={() => setOpen(undefined)} onCancel={() => setOpen(undefined)} />
      )}
      {open === "log" && <Log target={t} />}
      {open === "delete" && <Delete target={t} onClose={() => setOpen(undefined)} />}
    </section>
  );
}

function Log({ target: t }: { target: NotificationTarget }) {
  const { ws } = usePlace();
  const log = useQuery(attemptsQuery(ws, t.id));
  if (log.isPending) return <Skeleton rows={3} />;
  if (log.isError) return <Failed error={log.error} workspace={ws} retry={() => void log.refetch()} />;
  return (
    <>
      {log.data.waiting > 0 && <p>{log.data.waiting} wait to be sent.</p>}
      {log.data.attempts.length === 0 ? (
        <p className="soft">Nothing was sent yet.</p>
      ) : (
        <ul className="rows" aria-label={`What was sent to ${t.label}`}>
          {log.data.attempts.map((a) => (
            <li key={`${a.notification}-${a.attempt}-${a.time ?? ""}`}>
              <div>
                <Status
                  look={
                    a.delivered
                      ? { word: "Arrived", tone: "good", mark: "done" }
                      : { word: "Failed", tone: "bad", mark: "failed" }
                  }
                />{" "}
                <Text>{a.title}</Text>{" "}
                <span className="soft">
                  <Time at={a.time} />
                  {a.attempt > 1 && `, attempt ${a.attempt}`}
                  {a.message !== undefined && (
                    <>
                      . <Said>{a.message}</Said>
                    </>
                  )}
                  {a.retryTime !== undefined && (
                    <>
                      {" "}
                      Next attempt <Upcoming at={a.retryTime} />.
                    </>
                  )}
                </span>
              </div>
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function Delete({ target: t, onClose }: { target: NotificationTarget; onClose: () => void }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const remove = useMutation({
    mutationFn: async () =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}/notificationTargets/{target}", {
          params: { path: { workspace: ws, target: t.id } },
        }),
      ),
    onSuccess: () => {
      onClose();
      void client.invalidateQueries({ queryKey: keys.kind(ws, "notifications") });
    },
  });
  return (
    <Dialog title={`Delete ${t.label}?`} open alert onClose={onClose}>
      <p>Nothing is sent there any more. What waits for it and its log go too.</p>
      {remove.isError && <Failed error={asApiError(remove.error)} title="Not deleted." />}
      <div className="actions end">
        <Button onClick={onClose}>Keep</Button>
        <Button look="danger" busy={remove.isPending} onClick={() => remove.mutate()}>
          Delete
        </Button>
      </div>
    </Dialog>
  );
}
