package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
)

const (
	benchFiles = 20_000
	benchSize  = 5243 // 100 MiB in all

	benchTrip = 40 * time.Millisecond
	benchRate = 50e6
)

// BenchmarkDeployment measures deployments beside `git clone --depth 1` of the same repository on
// the same machine in the same run, and prints both and their ratio. A deployment is fetched,
// checked out, on disk to stay and live; a clone is none of the last two. The git server is on
// loopback, or behind a line of 40 ms and 50 Mbit/s. Each figure is the median of its rounds.
func BenchmarkDeployment(b *testing.B) {
	server := gittest.New(b, token)
	large := &benchRepo{b: b, server: server, name: "acme/large", files: benchFiles}
	large.build()
	small := &benchRepo{b: b, server: server, name: "acme/small", files: 100}
	small.build()
	far := shaped(b, server.URL, benchTrip, benchRate)

	near := large.measure(server.URL, 3)
	distant := large.measure(far, 1)
	tiny := small.measure(server.URL, 3)

	b.ReportMetric(0, "ns/op")
	b.ReportMetric(near.first.ratio(near.clone), "a-first/clone")
	b.ReportMetric(near.repeat.ratio(near.clone), "b-repeat/clone")
	b.ReportMetric(distant.repeat.ratio(distant.clone), "c-repeat/clone")
	b.ReportMetric(distant.first.ratio(distant.clone), "c-first/clone")
	b.ReportMetric(float64(tiny.repeat.total().Milliseconds()), "small-ms")
	var t strings.Builder
	row := func(what string, got, peer figure, goal string) {
		fmt.Fprintf(&t, "\n  %-46s %8.3f s   clone %7.3f s   ratio %5.3f   goal %-8s %s", what, got.total().Seconds(), peer.total().Seconds(), got.ratio(peer), goal, got.parts())
	}
	row("(a) first, loopback", near.first, near.clone, "<= 1.1")
	row("(b) one file of 20,000 pushed, loopback", near.repeat, near.clone, "<= 0.4")
	row("(c) first, 40 ms and 50 Mbit/s", distant.first, distant.clone, "<= 1.1")
	row("(c) one file of 20,000 pushed, the same line", distant.repeat, distant.clone, "<= 0.1")
	row("100 files, first", tiny.first, tiny.clone, "")
	row("100 files, one pushed", tiny.repeat, tiny.clone, "< 1 s")
	fmt.Fprintf(&t, "\n  making the next pristine copy, in the background: %.3f s (loopback)", near.spare.total().Seconds())
	b.Log(t.String())
}

// figure is the median of some rounds, and its parts.
type figure struct{ rounds []round }

type round struct{ fetch, tree, live time.Duration }

func (r round) total() time.Duration { return r.fetch + r.tree + r.live }

func (f figure) median() round {
	s := slices.Clone(f.rounds)
	slices.SortFunc(s, func(a, b round) int { return int(a.total() - b.total()) })
	return s[len(s)/2]
}

func (f figure) total() time.Duration      { return f.median().total() }
func (f figure) ratio(peer figure) float64 { return f.total().Seconds() / peer.total().Seconds() }
func (f figure) parts() string {
	m := f.median()
	return fmt.Sprintf("(fetch %.3f, check out %.3f, switch %.3f)", m.fetch.Seconds(), m.tree.Seconds(), m.live.Seconds())
}

type measured struct{ clone, first, repeat, spare figure }

type benchRepo struct {
	b      *testing.B
	server *gittest.Server
	name   string
	files  int
	pushes int
}

// build makes a repository of text, which git packs to about two thirds.
func (r *benchRepo) build() {
	repo := r.server.Repo(r.name)
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 20_000)
	for i := range words {
		w := make([]byte, 2+random.IntN(8))
		for j := range w {
			w[j] = 'a' + byte(random.IntN(26))
		}
		words[i] = string(w)
	}
	var in bytes.Buffer
	fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Jane Developer <jane@example.test> 1700000000 +0000\ndata 1\nx\n")
	var text bytes.Buffer
	for i := range r.files {
		text.Reset()
		for text.Len() < benchSize {
			text.WriteString(words[random.IntN(len(words))])
			text.WriteByte(' ')
		}
		fmt.Fprintf(&in, "M 100644 inline dir%03d/sub%d/file%02d.txt\ndata %d\n%s\n", i/200, i/20%10, i%20, benchSize, text.Bytes()[:benchSize])
	}
	cmd := exec.CommandContext(r.b.Context(), "git", "--git-dir="+repo.Dir, "fast-import", "--quiet", "--force")
	cmd.Stdin = &in
	if out, err := cmd.CombinedOutput(); err != nil {
		r.b.Fatalf("%v: %s", err, out)
	}
}

// push changes one file of the branch.
func (r *benchRepo) push() {
	r.pushes++
	repo := r.server.Repo(r.name)
	in := fmt.Sprintf("commit refs/heads/main\ncommitter Jane Developer <jane@example.test> %d +0000\ndata 1\nx\nfrom refs/heads/main^0\nM 100644 inline dir000/sub0/file00.txt\ndata %d\n%s\n",
		1700000000+r.pushes, 6, fmt.Sprintf("%06d", r.pushes))
	cmd := exec.CommandContext(r.b.Context(), "git", "--git-dir="+repo.Dir, "fast-import", "--quiet")
	cmd.Stdin = strings.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.b.Fatalf("%v: %s", err, out)
	}
}

// settle has all that was written so far on disk, so that nobody pays for what others wrote.
func (r *benchRepo) settle(dir string) {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
	}
	if err != nil {
		r.b.Fatal(err)
	}
}

func (r *benchRepo) measure(site *url.URL, rounds int) measured {
	var m measured
	dir := r.b.TempDir()
	var d *benchDeployer
	// Nothing is removed before the end: ext4 is slow to make files for half a minute after many
	// were removed, and would charge whoever comes next.
	for i := range rounds {
		m.clone.rounds = append(m.clone.rounds, r.clone(site, filepath.Join(dir, fmt.Sprint("clone", i))))
		d = r.deployer(site, filepath.Join(dir, fmt.Sprint("deployer", i)))
		m.first.rounds = append(m.first.rounds, d.deploy())
	}
	for range max(rounds, 2) {
		m.spare.rounds = append(m.spare.rounds, d.prepare())
		r.push()
		m.repeat.rounds = append(m.repeat.rounds, d.deploy())
		if r.files > 500 && d.kept != r.files-1 {
			r.b.Fatalf("%d files were there already", d.kept)
		}
	}
	return m
}

func (r *benchRepo) clone(site *url.URL, to string) round {
	remote := *site
	remote.User = url.UserPassword("x-token-auth", token)
	remote.Path = "/" + r.name + ".git"
	r.settle(filepath.Dir(to))
	cmd := exec.CommandContext(r.b.Context(), "git", "clone", "--quiet", "--depth=1", remote.String(), to)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0")
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		r.b.Fatalf("clone: %v: %s", err, out)
	}
	return round{fetch: time.Since(begin)}
}

// benchDeployer does what a worker does about the tree of a deployment.
type benchDeployer struct {
	r       *benchRepo
	dir     string
	mirrors *Mirrors
	store   *release.Store
	number  int32
	kept    int
	copier  tree.Copier
}

func (r *benchRepo) deployer(site *url.URL, dir string) *benchDeployer {
	m, err := Open(Config{Dir: filepath.Join(dir, "cache"), Site: site, Tokens: &gittest.Tokens{List: []string{token}}, Logger: logs.Discard(), FreeDisk: release.FreeBytes})
	if err != nil {
		r.b.Fatal(err)
	}
	s, err := release.Open(r.b.Context(), filepath.Join(dir, "data"), "default")
	if err != nil {
		r.b.Fatal(err)
	}
	r.b.Cleanup(func() { _ = s.Close() })
	return &benchDeployer{r: r, dir: dir, mirrors: m, store: s}
}

func (d *benchDeployer) deploy() round {
	ctx, b := d.r.b.Context(), d.r.b
	must := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	d.r.settle(d.dir)
	d.number++
	epoch, directory := int64(d.number), release.DirectoryName(d.number, 1)
	var took round
	begin := time.Now()
	must(d.store.Claim(ctx, "acme-inc", "web", epoch, 1))
	snap, err := d.mirrors.Fetch(ctx, Source{Workspace: "acme-inc", Repository: "85d08b4e-571d-44e9-a507-fa476535aa98", FullName: d.r.name, Branch: "main"})
	must(err)
	took.fetch = time.Since(begin)
	begin = time.Now()
	root, list, err := d.store.TakeSpare(ctx, "acme-inc", "web", epoch, directory)
	must(err)
	var st tree.Stats
	if root != nil {
		st, err = snap.Update(ctx, root, list, nil)
	} else {
		root, err = d.store.Prepare("acme-inc", "web", directory)
		must(err)
		st, err = snap.Checkout(ctx, root, nil)
	}
	must(err)
	_ = root.Close()
	d.kept, d.copier = st.Kept, snap.Copier()
	snap.Close()
	took.tree = time.Since(begin)
	begin = time.Now()
	must(d.store.Switch(ctx, "acme-inc", "web", epoch, directory))
	took.live = time.Since(begin)
	return took
}

// prepare makes the pristine copy that a worker makes in the background.
func (d *benchDeployer) prepare() round {
	begin := time.Now()
	if d.copier != nil {
		err := d.store.MakeSpare(d.r.b.Context(), "acme-inc", "web", int64(d.number), func(tree *os.Root) ([]byte, error) {
			return d.copier(d.r.b.Context(), tree, func(context.Context) error { return nil })
		})
		if err != nil {
			d.r.b.Fatal(err)
		}
	}
	return round{tree: time.Since(begin)}
}
