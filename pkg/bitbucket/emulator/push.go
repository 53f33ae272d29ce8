package emulator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// RefChange is one ref of a push that Control makes without git. Exactly one of Branch and Tag is set.
type RefChange struct {
	Branch string `json:"branch"`
	Tag    string `json:"tag"`
	// From is where the ref starts: a branch, a tag, or anything git resolves to a commit. Empty: the ref's own tip,
	// else the main branch, else nothing (a root commit). A branch changed by the same push counts with its new tip.
	From string `json:"from"`
	// Orphan starts a branch from nothing.
	Orphan bool `json:"orphan"`
	// Commits are added on top, oldest first; not for tags.
	Commits []CommitSpec `json:"commits"`
	// Delete removes the ref.
	Delete bool `json:"delete"`
	// Annotation makes an annotated tag with this message.
	Annotation string `json:"annotation"`
}

// CommitSpec is a commit to make. Files maps paths to contents; Remove lists paths to delete.
type CommitSpec struct {
	Message     string            `json:"message"`
	Files       map[string]string `json:"files"`
	Remove      []string          `json:"remove"`
	AuthorName  string            `json:"author_name"`
	AuthorEmail string            `json:"author_email"`
	Time        time.Time         `json:"time"`
}

// RefResult says where a ref was and is; an empty hash means it did not or does not exist.
type RefResult struct {
	Ref string `json:"ref"` // full name, e.g. refs/heads/main
	Old string `json:"old"`
	New string `json:"new"`
}

// identity signs commits that name no author.
type identity struct {
	name, email string
	at          time.Time
}

// importer writes a git fast-import stream.
type importer struct {
	g      *gitStore
	ctx    context.Context //nolint:containedctx // lives for one apply
	dir    string
	refs   map[string]ref
	by     identity
	stream bytes.Buffer
	marks  int
	tips   map[string]string // refs set by this stream: ":mark" or a hash
}

// apply makes the changes: one process for all that is added, one for all that is deleted.
func (g *gitStore) apply(ctx context.Context, dir string, refs map[string]ref, changes []RefChange, by identity) error {
	im := &importer{g: g, ctx: ctx, dir: dir, refs: refs, by: by, tips: map[string]string{}}
	var deletes strings.Builder
	for i, c := range changes {
		name, err := c.refName()
		if err != nil {
			return fmt.Errorf("change %d: %w", i, err)
		}
		if c.Delete {
			if _, exists := refs[name]; !exists {
				return fmt.Errorf("change %d: there is no %s", i, name)
			}
			fmt.Fprintf(&deletes, "delete %s\n", name)
			continue
		}
		if err := im.change(name, c); err != nil {
			return fmt.Errorf("change %d (%s): %w", i, name, err)
		}
	}
	if im.stream.Len() > 0 {
		im.stream.WriteString("done\n") // with --done, a cut stream changes nothing
		if _, err := g.run(ctx, dir, &im.stream, "fast-import", "--quiet", "--force", "--done"); err != nil {
			return err
		}
	}
	if deletes.Len() > 0 {
		if _, err := g.run(ctx, dir, strings.NewReader(deletes.String()), "update-ref", "--stdin"); err != nil {
			return err
		}
	}
	return nil
}

func (c *RefChange) refName() (string, error) {
	name := "refs/heads/" + c.Branch
	if c.Tag != "" {
		name = "refs/tags/" + c.Tag
	}
	if (c.Branch == "") == (c.Tag == "") || strings.ContainsAny(name, " \n\x00~^:?*[\\") {
		return "", errors.New("needs either a branch or a tag, with a valid name")
	}
	return name, nil
}

// change writes one ref.
func (im *importer) change(name string, c RefChange) error {
	from, err := im.start(name, c)
	if err != nil {
		return err
	}
	switch {
	case c.Tag != "" && from == "":
		return errors.New("a tag needs a commit to point at")
	case c.Tag != "" && c.Annotation != "":
		fmt.Fprintf(&im.stream, "tag %s\nfrom %s\ntagger %s <%s> %d +0000\n", c.Tag, from, im.by.name, im.by.email, im.by.at.Unix())
		im.data(c.Annotation + "\n")
		return nil
	case len(c.Commits) == 0 && from == "":
		return errors.New("nothing to point at")
	case len(c.Commits) == 0:
		fmt.Fprintf(&im.stream, "reset %s\nfrom %s\n\n", name, from)
		im.tips[name] = from
		return nil
	case from == "":
		fmt.Fprintf(&im.stream, "reset %s\n\n", name)
	}
	for i, spec := range c.Commits {
		if i > 0 {
			from = "" // goes on from the commit before
		}
		if err := im.commit(name, from, spec); err != nil {
			return err
		}
	}
	return nil
}

// start resolves where a ref begins: a hash, a mark, or "" for nothing.
func (im *importer) start(name string, c RefChange) (string, error) {
	if c.Orphan {
		return "", nil
	}
	if c.From == "" {
		if existing, exists := im.refs[name]; exists {
			return existing.commit, nil
		}
		if c.Tag == "" && len(im.refs) == 0 {
			return "", nil
		}
		return im.resolve(cmp.Or(mainBranchOf(im.refs), "main"))
	}
	return im.resolve(c.From)
}

func (im *importer) resolve(from string) (string, error) {
	for _, name := range []string{"refs/heads/" + from, "refs/tags/" + from, from} {
		if tip := im.tips[name]; tip != "" {
			return tip, nil
		}
		if existing, exists := im.refs[name]; exists {
			return existing.commit, nil
		}
	}
	if strings.HasPrefix(from, "-") {
		return "", fmt.Errorf("cannot start from %q", from)
	}
	out, err := im.g.run(im.ctx, im.dir, nil, "rev-parse", "--verify", "--quiet", from+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("cannot start from %q: no such commit", from)
	}
	return strings.TrimSpace(string(out)), nil
}

func (im *importer) commit(name, from string, spec CommitSpec) error {
	im.marks++
	at := spec.Time
	if at.IsZero() {
		at = im.by.at.Add(time.Duration(im.marks) * time.Second)
	}
	author, email := cmp.Or(spec.AuthorName, im.by.name), cmp.Or(spec.AuthorEmail, im.by.email)
	fmt.Fprintf(&im.stream, "commit %s\nmark :%d\n", name, im.marks)
	fmt.Fprintf(&im.stream, "author %s <%s> %d +0000\n", author, email, at.Unix())
	fmt.Fprintf(&im.stream, "committer %s <%s> %d +0000\n", author, email, at.Unix())
	im.data(strings.TrimRight(spec.Message, "\n") + "\n")
	if from != "" {
		fmt.Fprintf(&im.stream, "from %s\n", from)
	}
	for _, path := range spec.Remove {
		fmt.Fprintf(&im.stream, "D %s\n", path)
	}
	for _, path := range slices.Sorted(maps.Keys(spec.Files)) {
		if path == "" || strings.ContainsAny(path, "\n\"") {
			return fmt.Errorf("path %q cannot be written", path)
		}
		fmt.Fprintf(&im.stream, "M 100644 inline %s\n", path)
		im.data(spec.Files[path])
	}
	im.stream.WriteString("\n")
	im.tips[name] = fmt.Sprintf(":%d", im.marks)
	return nil
}

func (im *importer) data(content string) {
	fmt.Fprintf(&im.stream, "data %d\n%s\n", len(content), content)
}

// mainBranchOf is the branch a first push makes the main one: main, else master, else the first by name.
func mainBranchOf(refs map[string]ref) string {
	var branches []string
	for name := range refs {
		if branch, isBranch := strings.CutPrefix(name, "refs/heads/"); isBranch {
			branches = append(branches, branch)
		}
	}
	slices.Sort(branches)
	for _, name := range []string{"main", "master"} {
		if slices.Contains(branches, name) {
			return name
		}
	}
	if len(branches) == 0 {
		return ""
	}
	return branches[0]
}

// push makes the changes as the account and delivers them like a git push.
func (e *Emulator) push(ctx context.Context, fullName, accountName string, changes []RefChange) ([]RefResult, error) {
	repo, err := e.findRepository(fullName)
	if err != nil {
		return nil, err
	}
	e.mu.RLock()
	account := e.st.accountByName(accountName)
	if account == nil {
		account = e.st.firstAdmin(&repo)
	}
	e.mu.RUnlock()
	if account == nil {
		return nil, fmt.Errorf("no account %q to push as", accountName)
	}
	dir, unlock, before, err := e.prepare(ctx, &repo)
	if err != nil {
		return nil, err
	}
	defer unlock()
	e.git.forget(repo.UUID)
	if err := e.git.apply(ctx, dir, before, changes, identity{account.DisplayName, account.Email, e.now()}); err != nil {
		return nil, err
	}
	return e.afterPush(ctx, repo, account, dir, before)
}

// afterPush compares the refs with those before, updates the repository and queues deliveries. Callers hold the
// repository's lock, so that deliveries of one repository are built in the order of its pushes.
func (e *Emulator) afterPush(ctx context.Context, repo Repository, actor *Account, dir string, before map[string]ref) ([]RefResult, error) {
	after, err := e.git.refs(ctx, repo.UUID)
	if err != nil {
		return nil, err
	}
	var results []RefResult
	for name := range merged(before, after) {
		if before[name].object != after[name].object {
			results = append(results, RefResult{Ref: name, Old: before[name].object, New: after[name].object})
		}
	}
	if len(results) == 0 {
		return []RefResult{}, nil
	}
	slices.SortFunc(results, func(a, b RefResult) int { return cmp.Compare(a.Ref, b.Ref) })
	main := mainBranchOf(after)
	if repo.MainBranch == "" && main != "" {
		if _, err := e.git.run(ctx, dir, nil, "symbolic-ref", "HEAD", "refs/heads/"+main); err != nil {
			return nil, err
		}
	}
	if err := e.touchRepository(repo.UUID, main, e.now()); err != nil {
		return nil, err
	}
	return results, e.deliverPush(ctx, repo.UUID, actor, dir, results, before, after)
}

func merged(a, b map[string]ref) map[string]ref {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]ref{}
	}
	maps.Copy(all, b)
	return all
}

// findRepository finds by "workspace/slug" (or UUIDs) and returns a copy.
func (e *Emulator) findRepository(fullName string) (Repository, error) {
	workspace, slug, _ := strings.Cut(fullName, "/")
	e.mu.RLock()
	defer e.mu.RUnlock()
	repo := e.st.repository(workspace, slug)
	if repo == nil {
		return Repository{}, fmt.Errorf("%w: repository %q", errNotFound, fullName)
	}
	return *repo, nil
}

// errNotFound is what control operations wrap when they are about something that does not exist.
var errNotFound = errors.New("not found")

// firstAdmin is some account that may push to the repository: the first admin by user name.
func (st *state) firstAdmin(repo *Repository) *Account {
	for _, account := range st.sortedAccounts() {
		if st.explicit(account, repo) == "admin" {
			return account
		}
	}
	return nil
}
