import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, requestId, type Member, type Role } from "../api/client";
import { invitationsQuery, keys, membersQuery } from "../api/queries";
import { roleWords } from "../lib/people";
import { usePlace } from "../lib/workspace";
import { Banner, Button, Copyable, Failed, PageTitle, Skeleton, Text, Time, useTitle } from "../ui/basics";
import { Dialog } from "../ui/dialog";
import { Typed } from "../ui/unsaved";

/** Who may do what in the workspace, and who is invited. */
export default function Members() {
  const { ws, adminOnly } = usePlace();
  const members = useQuery(membersQuery(ws));
  const [inviting, setInviting] = useState(false);
  const [link, setLink] = useState<string>();
  useTitle("Members");
  return (
    <>
      <PageTitle
        actions={
          !inviting && (
            <Button look="primary" forbidden={adminOnly} onClick={() => setInviting(true)}>
              Invite
            </Button>
          )
        }
      >
        Members
      </PageTitle>
      <p className="soft">
        What somebody may do holds from the next click on. People also come by the rules of an identity provider.
      </p>
      {link !== undefined && (
        <Banner
          role="status"
          tone="warn"
          title="Copy the link now and send it: it is shown only once."
          actions={<Button onClick={() => setLink(undefined)}>Done</Button>}
        >
          <Copyable label="Invitation" value={link} />
          <span className="soft">It works once, for seven days.</span>
        </Banner>
      )}
      {inviting && (
        <Typed>
          <Invite
            onDone={(made) => {
              setInviting(false);
              setLink(made);
            }}
            onCancel={() => setInviting(false)}
          />
        </Typed>
      )}
      {members.isPending ? (
        <Skeleton rows={4} />
      ) : members.isError ? (
        <Failed error={members.error} workspace={ws} retry={() => void members.refetch()} />
      ) : (
        <ul className="rows" aria-label="Members">
          {members.data.members.map((m) => (
            <Row key={m.id} member={m} />
          ))}
        </ul>
      )}
      {adminOnly === undefined && <Invitations />}
    </>
  );
}

/** Why this person cannot change that one; undefined when it can. */
function useBeyond(member: Member): string | undefined {
  const { workspace, me, adminOnly } = usePlace();
  if (adminOnly !== undefined) return member.id === me.subject ? undefined : adminOnly;
  if (member.role === "OWNER" && workspace.role !== "OWNER") return "Only an owner can change an owner. Ask one.";
  return undefined;
}

function Row({ member: m }: { member: Member }) {
  const { ws, workspace, me, adminOnly } = usePlace();
  const client = useQueryClient();
  const [leaving, setLeaving] = useState(false);
  const beyond = useBeyond(m);
  const own = m.id === me.subject;
  const change = useMutation({
    mutationFn: async (role: Role) =>
      body(
        await api.POST("/v1/workspaces/{workspace}/members/{member}:setRole", {
          params: { path: { workspace: ws, member: m.id } },
          body: { role },
        }),
      ),
    onSettled: () => {
      void client.invalidateQueries({ queryKey: keys.kind(ws, "members") });
      if (own) void client.invalidateQueries({ queryKey: ["me"] });
    },
  });
  const closed = adminOnly ?? beyond;
  return (
    <li>
      <div>
        <strong>
          <Text>{m.label}</Text>
        </strong>
        {own && " (you)"}{" "}
        <span className="soft">
          {m.email !== undefined && (
            <>
              <Text>{m.email}</Text>,{" "}
            </>
          )}
          {m.provider !== undefined ? (
            <>
              signs in with <Text>{m.provider}</Text>
            </>
          ) : (
            "signs in with the admin token"
          )}
          , since <Time at={m.createTime} />
          {m.providerRole !== undefined && `. The identity provider gives at least ${roleWords[m.providerRole]}.`}
        </span>
        {change.isError && <Failed error={asApiError(change.error)} title="The role is as it was." />}
      </div>
      <div className="actions">
        {closed === undefined ? (
          <select
            aria-label={`Role of ${m.label}`}
            value={m.role}
            disabled={change.isPending}
            onChange={(e) => change.mutate(e.target.value as Role)}
          >
            {(["MEMBER", "ADMIN", "OWNER"] as const).map((r) => (
              <option key={r} value={r} disabled={r === "OWNER" && workspace.role !== "OWNER"}>
                {roleWords[r]}
              </option>
            ))}
          </select>
        ) : (
          <span>
            {m.role !== undefined && roleWords[m.role]} <span className="soft">{closed}</span>
          </span>
        )}
        <Button look="danger" forbidden={own ? undefined : beyond} onClick={() => setLeaving(true)}>
          {own ? "Leave" : "Remove"}
          {!own && <span className="hidden"> {m.label}</span>}
        </Button>
      </div>
      {leaving && <Remove member={m} own={own} onClose={() => setLeaving(false)} />}
    </li>
  );
}

function Remove({ member: m, own, onClose }: { member: Member; own: boolean; onClose: () => void }) {
  const { ws, workspace } = usePlace();
  const client = useQueryClient();
  const remove = useMutation({
    mutationFn: async () =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}/members/{member}", {
          params: { path: { workspace: ws, member: m.id } },
        }),
      ),
    onSuccess: () => {
      onClose();
      if (own) window.location.assign("/");
      else void client.invalidateQueries({ queryKey: keys.kind(ws, "members") });
    },
  });
  return (
    <Dialog alert open title={own ? `Leave ${workspace.displayName}?` : `Remove ${m.label}?`} onClose={onClose}>
      <p>
        <strong>Goes, at once:</strong> {own ? "your" : "their"} way into the workspace, with the API keys that{" "}
        {own ? "you" : "they"} made.
      </p>
      <p>
        <strong>Stays:</strong> apps, what is live, and the connection to Bitbucket.
      </p>
      {remove.isError && <Failed error={asApiError(remove.error)} title="Nothing was changed." />}
      <div className="actions end">
        <Button autoFocus onClick={onClose}>
          {own ? "Stay" : "Keep"}
        </Button>
        <Button look="danger" busy={remove.isPending} onClick={() => remove.mutate()}>
          {own ? "Leave" : "Remove"}
        </Button>
      </div>
    </Dialog>
  );
}

function Invite({ onDone, onCancel }: { onDone: (link: string) => void; onCancel: () => void }) {
  const { ws, workspace } = usePlace();
  const client = useQueryClient();
  const [email, setEmail] = useState("");
  const [role, setRole] = useState<Role>("MEMBER");
  const [request] = useState(requestId);
  const invite = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/invitations", {
          params: { path: { workspace: ws } },
          body: { email, role, requestId: request },
        }),
      ),
    onSuccess: (made) => {
      void client.invalidateQueries({ queryKey: keys.kind(ws, "members") });
      onDone(made.url);
    },
  });
  const failure = invite.isError ? asApiError(invite.error) : undefined;
  return (
    <form
      className="card"
      aria-label="Invite somebody"
      onSubmit={(e) => {
        e.preventDefault();
        invite.mutate();
      }}
    >
      <label>
        E-mail address{" "}
        <input type="email" required autoFocus value={email} onChange={(e) => setEmail(e.target.value)} />
      </label>
      <p className="soft">The link lets in whoever signs in with this address, once the provider has verified it.</p>
      <label>
        Role{" "}
        <select value={role} onChange={(e) => setRole(e.target.value as Role)}>
          {(["MEMBER", "ADMIN", "OWNER"] as const).map((r) => (
            <option key={r} value={r} disabled={r === "OWNER" && workspace.role !== "OWNER"}>
              {roleWords[r]}
            </option>
          ))}
        </select>
      </label>
      {failure !== undefined && <Failed error={failure} title="Not invited." />}
      <div className="actions">
        <Button look="primary" type="submit" busy={invite.isPending}>
          Make the link
        </Button>
        <Button onClick={onCancel}>Cancel</Button>
      </div>
    </form>
  );
}

function Invitations() {
  const { ws } = usePlace();
  const client = useQueryClient();
  const open = useQuery(invitationsQuery(ws));
  const withdraw = useMutation({
    mutationFn: async (invitation: string) =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}/invitations/{invitation}", {
          params: { path: { workspace: ws, invitation } },
        }),
      ),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "members") }),
  });
  const list = open.data?.invitations ?? [];
  return (
    <section aria-labelledby="invitations">
      <h2 id="invitations">Invitations</h2>
      {open.isPending ? (
        <Skeleton rows={2} />
      ) : open.isError ? (
        <Failed error={open.error} workspace={ws} retry={() => void open.refetch()} />
      ) : list.length === 0 ? (
        <p className="soft">None is open.</p>
      ) : (
        <ul className="rows" aria-label="Open invitations">
          {list.map((i) => (
            <li key={i.id}>
              <div>
                <Text>{i.email}</Text>{" "}
                <span className="soft">
                  as {i.role !== undefined && roleWords[i.role]}, by <Text>{i.createdBy}</Text>, until{" "}
                  <Time at={i.expireTime} />
                </span>
              </div>
              <div className="actions">
                <Button busy={withdraw.isPending} onClick={() => withdraw.mutate(i.id)}>
                  Withdraw<span className="hidden"> the invitation for {i.email}</span>
                </Button>
              </div>
            </li>
          ))}
        </ul>
      )}
      {withdraw.isError && <Failed error={asApiError(withdraw.error)} title="Not withdrawn." />}
    </section>
  );
}
