package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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
	maxSubmodules     = 100
	maxSubmoduleDepth = 8
	maxModulesFile    = 1 << 20
)

// submodules collects the submodules of one commit.
type submodules struct {
	m        *Mirrors
	budget   *budget
	owner    string   // the Bitbucket workspace of the app's repository
	allowed  []string // others, or single repositories
	progress func(what string, done, all int64)
	done     int
	found    int
}

// addSubmodules fetches the commit's submodules, and theirs, each at the commit that the tree names
// and into a mirror of its own.
func (s *Snapshot) addSubmodules(ctx context.Context, b *budget, allowed []string, progress func(string, int64, int64)) error {
	ctx, cancel := s.m.timed(ctx)
	defer cancel()
	owner, _, _ := strings.Cut(s.target.fullName, "/")
	u := &submodules{m: s.m, budget: b, owner: owner, allowed: allowed, progress: progress}
	return u.add(ctx, s, "", []string{s.target.fullName + "@" + s.commit.Hash})
}

// add fetches what one snapshot's tree names. Above leads to it, as paths below the whole tree and as
// repositories at their commits.
func (u *submodules) add(ctx context.Context, s *Snapshot, above string, chain []string) error {
	places, modules, err := s.submodulePlaces(ctx)
	if err != nil || len(places) == 0 {
		return err
	}
	declared, err := s.submodulesDeclared(ctx, modules, above)
	if err != nil {
		return err
	}
	// As git does: its place stays empty, and nobody asks where it comes from.
	places = slices.DeleteFunc(places, func(p tree.Object) bool { return declared[p.Path].update == "none" })
	if len(places) == 0 {
		return nil
	}
	if len(chain) > maxSubmoduleDepth {
		return refuseSubmodule(path.Join(above, places[0].Path), "it is nested deeper than %d levels.", maxSubmoduleDepth)
	}
	if u.found += len(places); u.found > maxSubmodules {
		return refuseSubmodule(path.Join(above, places[0].Path), "the commit has more than %d submodules.", maxSubmodules)
	}
	for _, p := range places {
		at := path.Join(above, p.Path)
		named := declared[p.Path].url
		if named == "" {
			return refuseSubmodule(at, "the file .gitmodules does not say where it comes from.")
		}
		fullName, why := address.Submodule(s.m.cfg.Site, s.target.fullName, named)
		if why == "" {
			why = u.elsewhere(fullName)
		}
		if why != "" {
			return refuseSubmodule(at, "%s", why)
		}
		link := fullName + "@" + p.OID
		if slices.Contains(chain, link) {
			return refuseSubmodule(at, "it contains itself.")
		}
		sub, err := u.m.bring(ctx, target{workspace: s.target.workspace, id: submoduleID(fullName), fullName: fullName, commit: p.OID, known: true}, u.budget)
		if err != nil {
			return submoduleTrouble(at, err)
		}
		sub.notice = s.notice
		s.subs, s.Grafts = append(s.subs, sub), append(s.Grafts, tree.Graft{Path: p.Path, Tree: &sub.Tree})
		u.done++
		if u.progress != nil {
			u.progress("submodules", int64(u.done), int64(u.found))
		}
		if err := u.add(ctx, sub, at, append(slices.Clone(chain), link)); err != nil {
			return err
		}
	}
	return nil
}

func refuseSubmodule(at, format string, args ...any) error {
	return &remote.Error{Reason: remote.ReasonSubmoduleRefused, Message: fmt.Sprintf("The submodule at %q is not fetched: %s", at, fmt.Sprintf(format, args...))}
}

// submoduleTrouble says of a failure that it concerns a submodule. That its repository cannot be
// reached says nothing about the app's own: IsGone is not true of it.
func submoduleTrouble(at string, err error) error {
	e, ok := remote.AsError(err)
	if !ok {
		return fmt.Errorf("mirror: submodule at %q: %w", at, err)
	}
	told := *e
	told.Message = fmt.Sprintf("The submodule at %q could not be fetched: %s", at, e.Message)
	if remote.IsGone(err) {
		told.Reason, told.Doubtful, told.Err = remote.ReasonSubmoduleRefused, true, nil
	}
	return &told
}

// submoduleID names the directory of a submodule's mirror. The same repository may also be an app's
// own; that one is kept under its id.
func submoduleID(fullName string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(fullName)))
	return "submodule-" + hex.EncodeToString(sum[:16])
}

// submodulePlaces lists where the tree names other repositories' commits, and its .gitmodules.
func (s *Snapshot) submodulePlaces(ctx context.Context) (places []tree.Object, modules tree.Object, err error) {
	err = s.EachObject(ctx, func(o tree.Object) error {
		switch {
		case o.Mode == tree.ModeSubmodule:
			if err := tree.CheckPath(o.Path); err != nil {
				return err
			}
			places = append(places, o)
		case o.Path == ".gitmodules":
			modules = o
		}
		return nil
	})
	return places, modules, err
}

// declared is what .gitmodules says of one submodule. Its other variables (branch, ignore, shallow,
// fetchRecurseSubmodules) say how git updates and shows a work tree; they change nothing in what a
// clone has at the commit.
type declared struct{ url, update string }

// updates are the ways in which git brings a submodule up to date, as .gitmodules may name them. A
// command is none of them: git refuses it there, too.
var updates = []string{"", "checkout", "rebase", "merge", "none"}

// submodulesDeclared reads .gitmodules with git's own parser: path to what is declared. Names are used
// for nothing, and refused where git refuses them (git's CVE-2018-11235).
func (s *Snapshot) submodulesDeclared(ctx context.Context, modules tree.Object, above string) (map[string]declared, error) {
	at := path.Join(above, ".gitmodules")
	switch {
	case modules.OID == "":
		return nil, nil
	case !strings.HasPrefix(modules.Mode, "100"):
		return nil, refuseSubmodule(at, "the file .gitmodules is no regular file.")
	case modules.Size > maxModulesFile:
		return nil, refuseSubmodule(at, "the file .gitmodules is larger than %s.", remote.Bytes(maxModulesFile))
	}
	places, all := map[string]string{}, map[string]declared{}
	err := s.Git.Records(ctx, program.Command{Operation: "config", GitDir: s.GitDir, Args: []string{"config", "--blob=" + modules.OID, "--no-includes", "-z", "--list"}}, func(record string) error {
		key, value, _ := strings.Cut(record, "\n")
		rest, ok := strings.CutPrefix(key, "submodule.")
		dot := strings.LastIndexByte(rest, '.')
		if !ok || dot < 0 {
			return nil
		}
		name, variable := rest[:dot], rest[dot+1:]
		if slices.Contains(strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }), "..") || name == "" {
			return refuseSubmodule(at, "a submodule is named %q.", name)
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
		return nil, refuseSubmodule(at, "the file .gitmodules cannot be read.")
	}
	byPlace := map[string]declared{}
	for name, place := range places {
		if _, twice := byPlace[place]; twice {
			return nil, refuseSubmodule(path.Join(above, place), "the file .gitmodules names it twice.")
		}
		if !slices.Contains(updates, all[name].update) {
			return nil, refuseSubmodule(path.Join(above, place), "the file .gitmodules wants it updated by %q, which git does not allow there.", remote.OneLine(all[name].update))
		}
		byPlace[place] = all[name]
	}
	return byPlace, nil
}

// elsewhere tells why a repository that a submodule names may not be one of the app's; empty when it
// may. What the account can read is otherwise open to whoever can push to the app's repository.
func (u *submodules) elsewhere(fullName string) string {
	workspace, _, _ := strings.Cut(fullName, "/")
	if strings.EqualFold(workspace, u.owner) || slices.ContainsFunc(u.allowed, func(a string) bool {
		return a == "*" || strings.EqualFold(a, workspace) || strings.EqualFold(a, fullName)
	}) {
		return ""
	}
	return fmt.Sprintf("%s belongs to another Bitbucket workspace than the app's repository. An owner or admin can allow %q in the app's settings (source.submoduleWorkspaces).", fullName, workspace)
}
