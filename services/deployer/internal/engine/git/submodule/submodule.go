package submodule

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// Bounds of the submodules of one commit, nested ones included.
const (
	MaxCount       = 100
	MaxDepth       = 8
	maxModulesFile = 1 << 20
)

// Config says what may be brought, and how.
type Config struct {
	Site *url.URL // scheme, host and port of Bitbucket
	// Owner is the Bitbucket workspace of the app's repository, and Allowed are others, or single
	// repositories, that submodules may come from; "*" for any.
	Owner   string
	Allowed []string
	// Bring fetches a repository's commit and returns its tree.
	Bring func(ctx context.Context, fullName, commit string) (*tree.Tree, error)
	// Progress, if not nil, hears how many are done, of those found so far.
	Progress func(done, all int64)
}

// submodules collects the submodules of one commit.
type submodules struct {
	Config
	done  int
	found int
}

// Add brings the submodules of a repository's commit, and theirs, each at the commit that the tree names,
// and puts their trees in their places.
func Add(ctx context.Context, t *tree.Tree, fullName string, cfg Config) error {
	u := &submodules{Config: cfg}
	return u.add(ctx, t, fullName, "", []string{fullName + "@" + t.Commit})
}

// add brings what one tree names, of the repository fullName. Above leads to it, as paths below the whole tree and as
// repositories at their commits.
func (u *submodules) add(ctx context.Context, t *tree.Tree, fullName, above string, chain []string) error {
	links, modules, err := places(ctx, t)
	if err != nil || len(links) == 0 {
		return err
	}
	named, err := declarations(ctx, t, modules, above)
	if err != nil {
		return err
	}
	// As git does: its place stays empty, and nobody asks where it comes from.
	links = slices.DeleteFunc(links, func(p tree.Object) bool { return named[p.Path].update == "none" })
	if len(links) == 0 {
		return nil
	}
	if len(chain) > MaxDepth {
		return refuse(path.Join(above, links[0].Path), "it is nested deeper than %d levels.", MaxDepth)
	}
	if u.found += len(links); u.found > MaxCount {
		return refuse(path.Join(above, links[0].Path), "the commit has more than %d submodules.", MaxCount)
	}
	for _, p := range links {
		at := path.Join(above, p.Path)
		url := named[p.Path].url
		if url == "" {
			return refuse(at, "the file .gitmodules does not say where it comes from.")
		}
		subName, why := address.Submodule(u.Site, fullName, url)
		if why == "" {
			why = u.elsewhere(subName)
		}
		if why != "" {
			return refuse(at, "%s", why)
		}
		link := subName + "@" + p.OID
		if slices.Contains(chain, link) {
			return refuse(at, "it contains itself.")
		}
		sub, err := u.Bring(ctx, subName, p.OID)
		if err != nil {
			return trouble(at, err)
		}
		t.Grafts = append(t.Grafts, tree.Graft{Path: p.Path, Tree: sub})
		u.done++
		if u.Progress != nil {
			u.Progress(int64(u.done), int64(u.found))
		}
		if err := u.add(ctx, sub, subName, at, append(slices.Clone(chain), link)); err != nil {
			return err
		}
	}
	return nil
}

func refuse(at, format string, args ...any) error {
	return &remote.Error{Reason: remote.ReasonSubmoduleRefused, Message: fmt.Sprintf("The submodule at %q is not fetched: %s", at, fmt.Sprintf(format, args...))}
}

// trouble says of a failure that it concerns a submodule. That its repository cannot be
// reached says nothing about the app's own: IsGone is not true of it.
func trouble(at string, err error) error {
	e, ok := remote.AsError(err)
	if !ok {
		return fmt.Errorf("submodule at %q: %w", at, err)
	}
	told := *e
	told.Message = fmt.Sprintf("The submodule at %q could not be fetched: %s", at, e.Message)
	if remote.IsGone(err) {
		told.Reason, told.Doubtful, told.Err = remote.ReasonSubmoduleRefused, true, nil
	}
	return &told
}

// places lists where the tree names other repositories' commits, and its .gitmodules.
func places(ctx context.Context, t *tree.Tree) (links []tree.Object, modules tree.Object, err error) {
	err = t.EachObject(ctx, func(o tree.Object) error {
		switch {
		case o.Mode == tree.ModeSubmodule:
			if err := tree.CheckPath(o.Path); err != nil {
				return err
			}
			links = append(links, o)
		case o.Path == ".gitmodules":
			modules = o
		}
		return nil
	})
	return links, modules, err
}

// declared is what .gitmodules says of one submodule. Its other variables (branch, ignore, shallow,
// fetchRecurseSubmodules) say how git updates and shows a work tree; they change nothing in what a
// clone has at the commit.
type declared struct{ url, update string }

// updates are the ways in which git brings a submodule up to date, as .gitmodules may name them. A
// command is none of them: git refuses it there, too.
var updates = []string{"", "checkout", "rebase", "merge", "none"}

// declarations reads .gitmodules with git's own parser: path to what is declared. Names are used
// for nothing, and refused where git refuses them (git's CVE-2018-11235).
func declarations(ctx context.Context, t *tree.Tree, modules tree.Object, above string) (map[string]declared, error) {
	at := path.Join(above, ".gitmodules")
	switch {
	case modules.OID == "":
		return nil, nil
	case !strings.HasPrefix(modules.Mode, "100"):
		return nil, refuse(at, "the file .gitmodules is no regular file.")
	case modules.Size > maxModulesFile:
		return nil, refuse(at, "the file .gitmodules is larger than %s.", remote.Bytes(maxModulesFile))
	}
	places, all := map[string]string{}, map[string]declared{}
	err := t.Git.Records(ctx, program.Command{Operation: "config", GitDir: t.GitDir, Args: []string{"config", "--blob=" + modules.OID, "--no-includes", "-z", "--list"}}, func(record string) error {
		key, value, _ := strings.Cut(record, "\n")
		rest, ok := strings.CutPrefix(key, "submodule.")
		dot := strings.LastIndexByte(rest, '.')
		if !ok || dot < 0 {
			return nil
		}
		name, variable := rest[:dot], rest[dot+1:]
		if slices.Contains(strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }), "..") || name == "" {
			return refuse(at, "a submodule is named %q.", name)
		}
		d := all[name]
		switch variable {
		case "path":
			places[name] = value
		case "url":
			d.url = value
		case "update":
			d.update = value
		}
		all[name] = d
		return nil
	})
	if err != nil {
		if remote.Explained(err) || ctx.Err() != nil {
			return nil, err
		}
		return nil, refuse(at, "the file .gitmodules cannot be read.")
	}
	byPlace := map[string]declared{}
	for name, place := range places {
		if _, twice := byPlace[place]; twice {
			return nil, refuse(path.Join(above, place), "the file .gitmodules names it twice.")
		}
		if !slices.Contains(updates, all[name].update) {
			return nil, refuse(path.Join(above, place), "the file .gitmodules wants it updated by %q, which git does not allow there.", remote.OneLine(all[name].update))
		}
		byPlace[place] = all[name]
	}
	return byPlace, nil
}

// elsewhere tells why a repository that a submodule names may not be one of the app's; empty when it
// may. What the account can read is otherwise open to whoever can push to the app's repository.
func (u *submodules) elsewhere(fullName string) string {
	workspace, _, _ := strings.Cut(fullName, "/")
	if strings.EqualFold(workspace, u.Owner) || slices.ContainsFunc(u.Allowed, func(a string) bool {
		return a == "*" || strings.EqualFold(a, workspace) || strings.EqualFold(a, fullName)
	}) {
		return ""
	}
	return fmt.Sprintf("%s belongs to another Bitbucket workspace than the app's repository. An owner or admin can allow %q in the app's settings (source.submoduleWorkspaces).", fullName, workspace)
}
