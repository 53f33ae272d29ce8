import { useMemo } from "react";
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import type { Branch } from "../api/client";
import { asApiError } from "../api/client";
import { branchesQuery } from "../api/queries";
import { useAsked } from "../lib/asked";
import { shortHash, subject } from "../lib/text";
import { usePlace } from "../lib/workspace";
import { Said, Text, Time, Upcoming } from "./basics";
import { Combobox } from "./combobox";

/** A branch to choose; of one that is chosen and not among those that were fetched only the name is known. */
type Choice = Pick<Branch, "name" | "default"> & Partial<Branch>;

/** Chooses a branch of a repository; live from Bitbucket, the default branch first. */
export function BranchSelect({
  repository,
  value,
  onChange,
  error,
  disabled,
  labelled = false,
}: {
  repository: string;
  value: string;
  onChange: (branch: string) => void;
  error?: string | undefined;
  disabled?: boolean;
  labelled?: boolean;
}) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const { asked, ask } = useAsked((query) => client.fetchInfiniteQuery(branchesQuery(ws, repository, query)));
  const branches = useInfiniteQuery({ ...branchesQuery(ws, repository, asked), enabled: repository !== "" });
  const items = useMemo(() => branches.data?.pages.flatMap((p) => p.branches) ?? [], [branches.data]);
  const first = branches.data?.pages[0];
  const refused = branches.isError ? asApiError(branches.error) : undefined;
  const trouble = refused && (
    <>
      <Said>{refused.message}</Said>
      {refused.retryAfterSeconds !== undefined && (
        <>
          {" "}
          Again <Upcoming at={new Date(branches.errorUpdatedAt + refused.retryAfterSeconds * 1000).toISOString()} />.
        </>
      )}
    </>
  );
  return (
    <Combobox<Choice>
      label="Branch"
      labelled={labelled}
      description={value === "" ? "The branch to deploy; with auto-deploy on, the one to watch." : undefined}
      error={error ?? trouble}
      placeholder={repository === "" ? "Choose a repository first" : "Choose a branch"}
      disabled={(disabled ?? false) || repository === ""}
      value={value === "" ? undefined : (items.find((b) => b.name === value) ?? { name: value, default: false })}
      text={(b) => b.name}
      id={(b) => b.name}
      onChoose={(b) => onChange(b.name)}
      onQuery={ask}
      items={items}
      total={first?.totalSize ?? 0}
      onNeed={() => {
        if (branches.hasNextPage && !branches.isFetchingNextPage) void branches.fetchNextPage();
      }}
      loading={branches.isFetching}
      empty={
        trouble !== undefined
          ? trouble
          : asked === ""
            ? "The repository has no branch yet: push one, then come back."
            : `No branch contains “${asked}”.`
      }
      row={(b) => (
        <>
          <span className="option-main">
            <Text>{b.name}</Text>
            {b.default && <span className="tag">default</span>}
          </span>
          <span className="option-sub">
            <code>{shortHash(b.commit?.hash)}</code> <Text>{subject(b.commit?.message)}</Text>{" "}
            <Time at={b.commit?.time} />
          </span>
        </>
      )}
      footer={
        first !== undefined && (
          <span>
            {first.totalSize.toLocaleString("en")} {first.totalSize === 1 ? "branch" : "branches"}, live from Bitbucket
          </span>
        )
      }
    />
  );
}
