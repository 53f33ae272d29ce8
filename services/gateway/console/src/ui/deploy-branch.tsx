import { useMemo, useState } from "react";
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { asApiError, type App, type Branch } from "../api/client";
import { deploymentsQuery, matchingBranchesQuery } from "../api/queries";
import { useAsked } from "../lib/asked";
import { deployedFirst, lastDeployed } from "../lib/pattern";
import { shortHash, subject } from "../lib/text";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Said, Text, Time } from "./basics";
import { Combobox } from "./combobox";
import { Dialog } from "./dialog";

type Choice = Branch & { deployed: number };

interface Props {
  app: App;
  /** What is chosen at first; the branch deployed last when it is absent or gone. */
  branch?: string | undefined;
  busy: boolean;
  refused: unknown;
  onDeploy: (branch: string) => void;
  onClose: () => void;
}

/** Chooses one of the branches that the app's pattern matches, and deploys its newest commit. */
export default function DeployBranch({ app, branch, busy, refused, onDeploy, onClose }: Props) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const matching = (query: string) => matchingBranchesQuery(ws, app.repository, app.branch, query);
  const { asked, ask } = useAsked((query) => client.fetchQuery(matching(query)));
  const all = useQuery(matching(""));
  const found = useQuery(matching(asked));
  const history = useInfiniteQuery(deploymentsQuery(ws, app.id, {}, 100));
  const last = useMemo(() => lastDeployed(history.data?.pages.flatMap((p) => p.deployments) ?? []), [history.data]);
  const items = useMemo(() => deployedFirst(found.data?.branches ?? [], last), [found.data, last]);
  const [chosen, setChosen] = useState<Choice>();
  const first = useMemo(() => {
    const list = history.isPending ? [] : deployedFirst(all.data?.branches ?? [], last);
    return list.find((b) => b.name === branch) ?? list[0];
  }, [all.data, last, branch, history.isPending]);
  const value = chosen ?? first;
  const count = found.data?.branches.length ?? 0;
  return (
    <Dialog title="Deploy the newest commit of a branch" open onClose={onClose}>
      <form
        noValidate
        onSubmit={(e) => {
          e.preventDefault();
          if (value !== undefined && !busy) onDeploy(value.name);
        }}
      >
        <p>
          {app.id} watches the branches of <Text>{app.repositoryFullName}</Text> that match <code>{app.branch}</code>.
        </p>
        <Combobox<Choice>
          label="Branch"
          autoFocus
          error={found.isError ? <Said>{asApiError(found.error).message}</Said> : undefined}
          placeholder={found.isPending ? "Loading the branches…" : "Search the branches"}
          value={value}
          text={(b) => b.name}
          id={(b) => b.name}
          onChoose={setChosen}
          onQuery={ask}
          items={items}
          total={items.length}
          onNeed={() => undefined}
          loading={found.isFetching}
          empty={
            asked === ""
              ? `No branch matches ${app.branch} yet: push one, then come back.`
              : `No branch that matches ${app.branch} contains “${asked}”.`
          }
          row={(b) => (
            <>
              <span className="option-main">
                <Text>{b.name}</Text>
                {b.deployed > 0 && <span className="tag">deployed as #{b.deployed}</span>}
              </span>
              <span className="option-sub">
                <code>{shortHash(b.commit?.hash)}</code> <Text>{subject(b.commit?.message)}</Text>{" "}
                <Time at={b.commit?.time} />
              </span>
            </>
          )}
          footer={
            found.data !== undefined && (
              <span>
                {found.data.more
                  ? `The newest ${count} that match; search for others.`
                  : `${count} ${count === 1 ? "branch matches" : "branches match"}, live from Bitbucket`}
              </span>
            )
          }
        />
        {all.data?.branches.length === 0 && (
          <p className="soft">No branch matches it yet. Push one, and it can be chosen here.</p>
        )}
        {refused !== undefined && <Failed error={refused} workspace={ws} title="Nothing was deployed." />}
        <div className="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button
            type="submit"
            look="primary"
            busy={busy}
            forbidden={value === undefined ? "Choose a branch first." : undefined}
          >
            {busy ? (
              "Starting…"
            ) : value === undefined ? (
              "Deploy"
            ) : (
              <>
                Deploy <Text>{value.name}</Text>
              </>
            )}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
