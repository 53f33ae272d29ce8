package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// ReasonSubmoduleRefused is the reason of an *Error about a submodule that is not fetched.
const ReasonSubmoduleRefused = "SUBMODULE_REFUSED"

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
	progress func(what string, done, all int64)
	done     int
	found    int
}

// addSubmodules fetches the commit's submodules, and theirs, each at the commit that the tree names
// and into a mirror of its own.
func (s *Snapshot) addSubmodules(ctx context.Context, b *budget, progress func(string, int64, int64)) error {
	ctx, cancel := s.m.timed(ctx)
	defer cancel()
	u := &submodules{m: s.m, budget: b, progress: progress}
	return u.add(ctx, s, "", []string{s.target.fullName + "@" + s.commit.Hash})
}

// add fetches what one snapshot's tree names. Above leads to it, as paths below the whole tree and as
// repositories at their commits.
func (u *submodules) add(ctx context.Context, s *Snapshot, above string, chain []string) error {
	places, modules, err := s.submodulePlaces(ctx)
	if err != nil || len(places) == 0 {
		return err
	}
	if len(chain) > maxSubmoduleDepth {
		return refuseSubmodule(path.Join(above, places[0].path), "it is nested deeper than %d levels.", maxSubmoduleDepth)
	}
	if u.found += len(places); u.found > maxSubmodules {
		return refuseSubmodule(path.Join(above, places[0].path), "the commit has more than %d submodules.", maxSubmodules)
	}
	urls, err := s.submoduleURLs(ctx, modules, above)
	if err != nil {
		return err
	}
	for _, p := range places {
		at := path.Join(above, p.path)
		address, ok := urls[p.path]
		if !ok {
			return refuseSubmodule(at, "the file .gitmodules does not say where it comes from.")
		}
		fullName, why := submoduleRepository(s.m.cfg.Site, s.target.fullName, address)
		if why != "" {
			return refuseSubmodule(at, "%s", why)
		}
		link := fullName + "@" + p.oid
		if slices.Contains(chain, link) {
			return refuseSubmodule(at, "it contains itself.")
		}
		sub, err := u.m.bring(ctx, target{workspace: s.target.workspace, id: submoduleID(fullName), fullName: fullName, commit: p.oid, known: true}, u.budget)
		if err != nil {
			return submoduleTrouble(at, err)
		}
		s.grafts = append(s.grafts, graft{path: p.path, snap: sub})
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
	return &Error{Reason: ReasonSubmoduleRefused, Message: fmt.Sprintf("The submodule at %q is not fetched: %s", at, fmt.Sprintf(format, args...))}
}

// submoduleTrouble says of a failure that it concerns a submodule. That its repository cannot be
// reached says nothing about the app's own: IsGone is not true of it.
func submoduleTrouble(at string, err error) error {
	e, ok := asError(err)
	if !ok {
		return fmt.Errorf("mirror: submodule at %q: %w", at, err)
	}
	told := *e
	told.Message = fmt.Sprintf("The submodule at %q could not be fetched: %s", at, e.Message)
	if IsGone(err) {
		told.Reason, told.Err = ReasonSubmoduleRefused, nil
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
func (s *Snapshot) submodulePlaces(ctx context.Context) (places []object, modules object, err error) {
	err = s.eachObject(ctx, func(o object) error {
		switch {
		case o.mode == modeSubmodule:
			if err := checkPath(o.path); err != nil {
				return err
			}
			if len(places) == maxSubmodules {
				return refuseSubmodule(o.path, "the commit has more than %d submodules.", maxSubmodules)
			}
			places = append(places, o)
		case o.path == ".gitmodules":
			modules = o
		}
		return nil
	})
	return places, modules, err
}

// submoduleURLs reads .gitmodules with git's own parser: path to address. Names are used for
// nothing, and refused where git refuses them (git's CVE-2018-11235).
func (s *Snapshot) submoduleURLs(ctx context.Context, modules object, above string) (map[string]string, error) {
	at := path.Join(above, ".gitmodules")
	switch {
	case modules.oid == "":
		return nil, nil
	case !strings.HasPrefix(modules.mode, "100"):
		return nil, refuseSubmodule(at, "the file .gitmodules is no regular file.")
	case modules.size > maxModulesFile:
		return nil, refuseSubmodule(at, "the file .gitmodules is larger than %s.", bytesWords(maxModulesFile))
	}
	names, addresses := map[string]string{}, map[string]string{}
	err := s.m.git.records(ctx, command{operation: "config", gitDir: s.git, args: []string{"config", "--blob=" + modules.oid, "--no-includes", "-z", "--list"}}, func(record string) error {
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
		switch variable {
		case "path":
			names[name] = value
		case "url":
			addresses[name] = value
		}
		return nil
	})
	if err != nil {
		if explained(err) || ctx.Err() != nil {
			return nil, err
		}
		return nil, refuseSubmodule(at, "the file .gitmodules cannot be read.")
	}
	urls := map[string]string{}
	for name, place := range names {
		if _, twice := urls[place]; twice {
			return nil, refuseSubmodule(path.Join(above, place), "the file .gitmodules names it twice.")
		}
		if address, ok := addresses[name]; ok {
			urls[place] = address
		}
	}
	return urls, nil
}

// submoduleRepository is the full name of the repository that an address means, seen from the
// repository that holds .gitmodules; or why it is none that is fetched. Our credential goes to the
// configured site only, and so does every question.
func submoduleRepository(site *url.URL, parent, address string) (fullName, why string) {
	const remedy = "Write its address as ../<repository>, or as %s/<workspace>/<repository>, in .gitmodules."
	refused := fmt.Sprintf("only repositories of %s are fetched, over %s. "+remedy, site.Host, site.Scheme, strings.TrimRight(site.String(), "/"))
	if strings.HasPrefix(address, "./") || strings.HasPrefix(address, "../") {
		segments := strings.Split(parent, "/")
		for rest := range strings.SplitSeq(strings.TrimRight(address, "/"), "/") {
			switch rest {
			case ".", "":
			case "..":
				if len(segments) == 0 {
					return "", "its address leads out of the site. " + fmt.Sprintf(remedy, strings.TrimRight(site.String(), "/"))
				}
				segments = segments[:len(segments)-1]
			default:
				segments = append(segments, rest)
			}
		}
		fullName = strings.Join(segments, "/")
	} else {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != site.Scheme || u.Host != site.Host || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "" {
			return "", refused
		}
		below, ok := strings.CutPrefix(u.Path, strings.TrimRight(site.Path, "/")+"/")
		if !ok {
			return "", refused
		}
		fullName = strings.TrimRight(below, "/")
	}
	fullName = strings.TrimSuffix(fullName, ".git")
	if _, err := cloneURL(site, fullName); err != nil {
		return "", "its address names no repository of Bitbucket. " + fmt.Sprintf(remedy, strings.TrimRight(site.String(), "/"))
	}
	return fullName, ""
}
