import { useState } from "react";
import { queryOptions, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useSearchParams } from "react-router";
import { api, asApiError, body, type ApiKeyScope, type LoginRequest, type Workspace } from "../api/client";
import { meQuery } from "../api/queries";
import { serverNow } from "../lib/clock";
import { expiry, lifeWords, type Life } from "../lib/expiry";
import { roleWords, scopeWords } from "../lib/people";
import { Banner, Button, Failed, PageTitle, Skeleton, Text, Time, useTitle } from "../ui/basics";
import { TextField } from "../ui/settings/parts";

const loginQuery = (code: string) =>
  queryOptions({
    queryKey: ["login", code],
    queryFn: async ({ signal }) =>
      body(await api.GET("/v1/loginRequests/{userCode}", { params: { path: { userCode: code } }, signal })),
    enabled: code !== "",
  });

/** Lets the command line in that shows the same code: devpilot login. */
export default function Login() {
  const [query, setQuery] = useSearchParams();
  const code = query.get("code") ?? "";
  const login = useQuery(loginQuery(code));
  const me = useQuery(meQuery);
  useTitle("Command line");
  return (
    <main className="alone">
      <PageTitle>Sign in the command line</PageTitle>
      {code === "" || login.isError ? (
        <>
          {login.isError && <Failed error={login.error} />}
          <Ask
            key={code}
            before={code}
            onCode={(typed) => (typed === code ? void login.refetch() : setQuery({ code: typed }))}
          />
        </>
      ) : login.isPending || me.isPending ? (
        <Skeleton rows={5} />
      ) : me.isError ? (
        <Failed error={me.error} retry={() => void me.refetch()} />
      ) : login.data.state === "PENDING" ? (
        <Decide code={code} login={login.data} workspaces={me.data.workspaces.filter((w) => w.state === "ACTIVE")} />
      ) : login.data.state === "APPROVED" ? (
        <Banner role="status" tone="good" title="Approved.">
          Go back to the terminal: it is signed in within a few seconds. You can close this page. The key is on the
          workspace&apos;s page of API keys, where it can be revoked.
        </Banner>
      ) : (
        <Banner role="status" tone="idle" title="Denied.">
          The command line was not let in. You can close this page.
        </Banner>
      )}
    </main>
  );
}

function Ask({ before, onCode }: { before: string; onCode: (code: string) => void }) {
  const [typed, setTyped] = useState(before);
  return (
    <form
      className="card"
      aria-label="The code"
      onSubmit={(e) => {
        e.preventDefault();
        if (typed.trim() !== "") onCode(typed.trim());
      }}
    >
      <TextField
        label="Code"
        code
        autoFocus
        value={typed}
        onChange={setTyped}
        hint="As devpilot login shows it in the terminal, such as BCDF-GHJK."
      />
      <div className="actions">
        <Button look="primary" type="submit">
          Look it up
        </Button>
      </div>
    </form>
  );
}

/** What the person's role allows; undefined where that is all. */
function beyond(scope: ApiKeyScope, w: Workspace | undefined): string | undefined {
  return scope === "ADMIN" && w?.role === "MEMBER" ? "You are a member of this workspace." : undefined;
}

function Decide({ code, login, workspaces }: { code: string; login: LoginRequest; workspaces: Workspace[] }) {
  const client = useQueryClient();
  const last = localStorage.getItem("devpilot.workspace");
  const [ws, setWs] = useState((workspaces.find((w) => w.id === last) ?? workspaces[0])?.id ?? "");
  const [wanted, setScope] = useState<ApiKeyScope>("DEPLOY");
  const [life, setLife] = useState<Life>("90");
  const [opened] = useState(serverNow);
  const workspace = workspaces.find((w) => w.id === ws);
  const scope = beyond(wanted, workspace) === undefined ? wanted : "DEPLOY";
  const end = expiry(life, "", opened);
  const decide = useMutation({
    mutationFn: async (approve: boolean) =>
      approve
        ? body(
            await api.POST("/v1/workspaces/{workspace}/loginRequests/{userCode}:approve", {
              params: { path: { workspace: ws, userCode: code } },
              body: { scope, ...(end === undefined ? {} : { expireTime: end }) },
            }),
          )
        : body(await api.POST("/v1/loginRequests/{userCode}:deny", { params: { path: { userCode: code } }, body: {} })),
    onSuccess: (decided) => client.setQueryData(loginQuery(code).queryKey, decided),
    onError: (e) => {
      const { reason } = asApiError(e);
      if (reason === "LOGIN_REQUEST_ANSWERED" || reason === "LOGIN_REQUEST_NOT_FOUND")
        void client.invalidateQueries({ queryKey: loginQuery(code).queryKey });
    },
  });
  return (
    <form className="card login" aria-label="The login" onSubmit={(e) => e.preventDefault()}>
      <p>
        A command line asks to be let in as you. Approve it only if you ran <code>devpilot login</code> yourself just
        now and your terminal shows this code:
      </p>
      <h2>{login.userCode}</h2>
      <ul className="rows" aria-label="What asks">
        <li>
          <span>
            {login.clientName === "" ? (
              "It does not say what its machine is called."
            ) : (
              <>
                It says that its machine is called{" "}
                <strong>
                  <Text>{login.clientName}</Text>
                </strong>
                . Nobody has checked that.
              </>
            )}
          </span>
        </li>
        <li>
          <span>
            It came from the address{" "}
            <strong>
              <Text>{login.address}</Text>
            </strong>
            , <Time at={login.createTime} />.
          </span>
        </li>
      </ul>
      {workspaces.length === 0 ? (
        <Banner tone="warn" title="You are in no workspace.">
          A command line is let into one. Ask an owner of a workspace to invite you.
        </Banner>
      ) : (
        <>
          <label>
            Workspace{" "}
            <select value={ws} onChange={(e) => setWs(e.target.value)}>
              {workspaces.map((w) => (
                <option key={w.id} value={w.id}>
                  {w.displayName} ({roleWords[w.role as keyof typeof roleWords]})
                </option>
              ))}
            </select>
          </label>
          <fieldset className="plain choices">
            <legend>What it may do</legend>
            {(["READ", "DEPLOY", "ADMIN"] as const).map((s) => (
              <label key={s} className="check block">
                <input
                  type="radio"
                  name="scope"
                  checked={scope === s}
                  disabled={beyond(s, workspace) !== undefined}
                  onChange={() => setScope(s)}
                />{" "}
                {scopeWords[s].name} <span className="soft">{beyond(s, workspace) ?? scopeWords[s].may}</span>
              </label>
            ))}
          </fieldset>
          <label>
            Ends{" "}
            <select value={life} onChange={(e) => setLife(e.target.value as Life)}>
              {(Object.keys(lifeWords) as Life[])
                .filter((l) => l !== "day")
                .map((l) => (
                  <option key={l} value={l}>
                    {lifeWords[l]}
                  </option>
                ))}
            </select>
          </label>
        </>
      )}
      {decide.isError && <Failed error={decide.error} title="Nothing was decided." workspace={ws} />}
      <div className="actions">
        {workspaces.length > 0 && (
          <Button look="primary" busy={decide.isPending} onClick={() => decide.mutate(true)}>
            Approve
          </Button>
        )}
        <Button look="danger" busy={decide.isPending} onClick={() => decide.mutate(false)}>
          Deny
        </Button>
      </div>
    </form>
  );
}
