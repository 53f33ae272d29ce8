package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	objects "devpilot.io/bitbucket/services/deployer/internal/engine/git/lfs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func withLFS(branch string) Source {
	src := source(branch)
	src.LFS = true
	return src
}

// declareAll hands all files to LFS.
const declareAll = "* filter=lfs diff=lfs merge=lfs -text\n"

// lfsCommit makes a commit with a .gitattributes that hands all files to LFS.
func lfsCommit(repo *gittest.Repo, branch string, files map[string]string) string {
	all := map[string]string{".gitattributes": declareAll}
	for p, content := range files {
		all[p] = content
	}
	return repo.Commit(branch, "x", all)
}

func TestLFS_contentComesInThePointersPlaces(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	big := strings.Repeat("large content ", 10_000)
	repo := f.git.Repo("acme/web")
	libRepo := f.git.Repo("acme/lib")
	lib := lfsCommit(libRepo, "main", map[string]string{"logo.png": lfs.Put("logo")})
	sub := repo.Tree(gittest.E("100755", "tool", lfs.Put("#!tool")), gittest.E("100644", "same.bin", lfs.Put(big)))
	files := []gittest.Entry{
		gittest.E("100644", ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\ntool filter=lfs\n"), gittest.E("100644", "a.bin", lfs.Put(big)), gittest.E("040000", "dir", sub),
		gittest.E("100644", "plain", "plain"), gittest.E("100644", ".gitmodules", module("lib", "lib", "../lib")), gittest.E("160000", "lib", lib),
		// Repositories do not choose where we go (git-lfs would read this).
		gittest.E("100644", ".lfsconfig", "[lfs]\n\turl = http://127.0.0.1:1/evil\n"),
	}
	repo.CommitTree("main", repo.Tree(files...), "with LFS")
	src := withLFS("main")
	src.Submodules = true
	var last, all atomic.Int64
	src.Progress = func(what string, done, total int64) {
		if what == "lfs" {
			last.Store(done)
			all.Store(total)
		}
	}
	want := map[string]string{
		".gitattributes": files[0].Content, "a.bin": big, "dir/same.bin": big, "dir/tool": "#!tool", "plain": "plain", ".gitmodules": files[4].Content, ".lfsconfig": files[6].Content, "lib/logo.png": "logo", "lib/.gitattributes": declareAll,
	}
	for range 2 {
		dir, _, err := f.fetchSource(src)
		if err != nil {
			t.Fatal(err)
		}
		same(t, filesIn(t, dir), want)
		if info, err := os.Stat(filepath.Join(dir, "dir/tool")); err != nil || info.Mode().Perm()&0o100 == 0 {
			t.Errorf("the mode is the tree's: %v %v", info, err)
		}
	}
	if n := len(lfs.Downloads()); n != 3 || lfs.Batches() != 2 {
		t.Errorf("%d downloads, %d batches: the second time nothing should be needed", n, lfs.Batches())
	}
	if last.Load() != int64(len(big)+6) || all.Load() != last.Load() {
		t.Errorf("progress: %d of %d", last.Load(), all.Load())
	}
	for _, h := range lfs.Downloads() {
		if h.Get("Authorization") != "" {
			t.Error("our credential went to the content's server")
		}
	}

	// Without the option pointers stay pointers, and that is known.
	s, err := f.mirrors.Fetch(t.Context(), source("main"))
	must(t, err)
	defer s.Close()
	if has, err := s.HasLFSPointers(t.Context()); err != nil || !has {
		t.Errorf("pointers: %v %v", has, err)
	}
	dir, err := f.checkOut(s)
	if err != nil || filesIn(t, dir)["a.bin"] != lfs.Put(big) {
		t.Fatalf("%v", err)
	}
	libSrc := source("main")
	libSrc.Repository, libSrc.FullName = "11111111-571d-44e9-a507-fa476535aa98", "acme/lib"
	plain, err := f.mirrors.Fetch(t.Context(), libSrc)
	must(t, err)
	defer plain.Close()
	if has, err := plain.HasLFSPointers(t.Context()); err != nil || !has {
		t.Errorf("the library has pointers: %v %v", has, err)
	}
}

func TestLFS_tokenIsRenewedOnceAndSeenNowhere(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	lfsCommit(f.git.Repo("acme/web"), "main", map[string]string{"a": lfs.Put("content")})
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int32
	f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/batch") && refused.Add(1) == 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	if dir, _, err := f.fetchSource(withLFS("main")); err != nil || filesIn(t, dir)["a"] != "content" {
		t.Fatal(err)
	}
	if len(f.tokens.Rejected) != 1 {
		t.Fatalf("%d renewals", len(f.tokens.Rejected))
	}
	f.logs.MustNotContain(t, remote.Forms(seal.NewSecret(token))...)
	f.logs.MustNotContain(t, "signature-")
}

func TestLFS_expiredDownloadIsAskedForOnceMore(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	lfsCommit(f.git.Repo("acme/web"), "main", map[string]string{"a": lfs.Put("content")})
	var n atomic.Int32
	lfs.Serve(func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	if dir, _, err := f.fetchSource(withLFS("main")); err != nil || filesIn(t, dir)["a"] != "content" || lfs.Batches() != 2 {
		t.Fatalf("%v, %d batches", err, lfs.Batches())
	}
}

// TestLFS_failures spoils LFS in each way for a commit that was fetched; some, and with -mirror.deep
// all, go through a whole fetch.
func TestLFS_failures(t *testing.T) {
	t.Parallel()
	status := func(code int, header ...string) func(*fixture, *gittest.LFS, string) {
		return func(f *fixture, _ *gittest.LFS, _ string) {
			f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/batch") {
					return false
				}
				for i := 0; i < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(code)
				_, _ = w.Write([]byte(`{"message":"for people: ` + token + `"}`))
				return true
			})
		}
	}
	serve := func(fn func(w http.ResponseWriter, r *http.Request)) func(*fixture, *gittest.LFS, string) {
		return func(_ *fixture, l *gittest.LFS, _ string) {
			l.Serve(func(w http.ResponseWriter, r *http.Request, _ string) bool { fn(w, r); return true })
		}
	}
	href := func(address string) func(*fixture, *gittest.LFS, string) {
		return func(_ *fixture, l *gittest.LFS, _ string) {
			l.Change(func(o map[string]any) {
				o["actions"] = map[string]any{"download": map[string]any{"href": address}}
			})
		}
	}
	f := setUp(t, Limits{StallTime: time.Second})
	lfsCommit(f.git.Repo("acme/web"), "main", map[string]string{"dir/a": f.git.LFS().Put("content")})
	snap, err := f.mirrors.Fetch(t.Context(), source("main"))
	must(t, err)
	defer snap.Close()
	fetched := []string{"batch 401 twice", "batch 429", "other content", "stall"}
	unavailable, failed := string(apierr.ReasonBitbucketUnavailable), remote.ReasonLFSFailed
	for name, c := range map[string]struct {
		spoil     func(*fixture, *gittest.LFS, string)
		reason    string
		temporary bool
	}{
		"no such object": {func(_ *fixture, l *gittest.LFS, _ string) {
			l.Change(func(o map[string]any) {
				delete(o, "actions")
				o["error"] = map[string]any{"code": 404, "message": "gone\nreally"}
			})
		}, failed, false},
		"no answer for it": {func(_ *fixture, l *gittest.LFS, _ string) {
			l.Change(func(o map[string]any) { o["oid"] = strings.Repeat("0", 64) })
		}, failed, false},
		"batch 403":       {status(403), failed, false},
		"batch 404":       {status(404), failed, false},
		"batch 401 twice": {status(401), string(apierr.ReasonAccessRefused), true},
		"batch 429":       {status(429, "Retry-After", "17"), string(apierr.ReasonBitbucketRateLimited), true},
		"batch 503":       {status(503), unavailable, true},
		"batch redirect":  {status(302, "Location", "http://127.0.0.1:1/"), failed, false},
		"batch not LFS":   {status(200), failed, false},
		"other content":   {func(_ *fixture, l *gittest.LFS, p string) { l.Replace(p, "CONTENT") }, failed, false},
		"shorter":         {func(_ *fixture, l *gittest.LFS, p string) { l.Replace(p, "cont") }, failed, false},
		"longer": {serve(func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write([]byte("content and more"))
		}), failed, false},
		"cut":          {serve(func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); _, _ = w.Write([]byte("con")) }), failed, false},
		"download 403": {serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }), failed, false},
		"download 404": {serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }), failed, false},
		"download 500": {serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }), unavailable, true},
		"download redirect": {serve(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}), failed, false},
		"connection cut": {serve(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), unavailable, true},
		"stall": {serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "7")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}), unavailable, true},
		"file address":       {href("file:///etc/passwd"), failed, false},
		"address with user":  {href("http://a:b@127.0.0.1/x"), failed, false},
		"no address":         {href("/x"), failed, false},
		"nobody at address":  {href("http://127.0.0.1:1/secret-path?X-Signature=secret"), unavailable, true},
		"control characters": {href("http://127.0.0.1/\n"), failed, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := *f
			f.t = t
			lfs := f.git.LFS()
			f.git.Intercept(nil)
			p := lfs.Put("content")
			c.spoil(&f, lfs, p)
			begin := time.Now()
			var err error
			if *deep || slices.Contains(fetched, name) {
				_, _, err = f.fetchSource(withLFS("main"))
			} else {
				err = snap.addLFS(t.Context(), &budget{bytes: 1 << 20}, nil)
			}
			e, ok := remote.AsError(err)
			if !ok || e.Reason != c.reason || e.Temporary != c.temporary || e.Message == "" || remote.IsGone(err) {
				t.Fatalf("%#v", err)
			}
			if c.reason == failed && !strings.Contains(e.Message, "LFS") {
				t.Errorf("message: %s", e.Message)
			}
			if name == "batch 429" && e.RetryAfter != 17*time.Second {
				t.Errorf("retry after %v", e.RetryAfter)
			}
			for _, secret := range append(remote.Forms(seal.NewSecret(token)), "X-Signature", "secret-path") {
				if strings.Contains(err.Error()+e.Message, secret) {
					t.Errorf("a secret is in the error: %v", err)
				}
			}
			if d := time.Since(begin); d > time.Minute {
				t.Errorf("took %v", d)
			}
			if kept, _ := filepath.Glob(filepath.Join(f.dir, "mirrors", "*", "*", "lfs", "*", "*", "*")); len(kept) > 0 {
				t.Errorf("kept %v", kept)
			}
			if left, err := os.ReadDir(filepath.Join(f.dir, "temporary")); err != nil || len(left) > 0 {
				t.Errorf("left over: %v %v", left, err)
			}
			for _, h := range lfs.Downloads() {
				if h.Get("Authorization") != "" {
					t.Error("our credential went to the content's server")
				}
			}
		})
	}
}

func TestLFS_limits(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FetchBytes: 100_000})
	lfs := f.git.LFS()
	lfsCommit(f.git.Repo("acme/web"), "main", map[string]string{"a": lfs.Put(strings.Repeat("x", 60_000)), "b": lfs.Put(strings.Repeat("y", 60_000))})
	if _, _, err := f.fetchSource(withLFS("main")); reason(err) != remote.ReasonRepositoryTooLarge || len(lfs.Downloads()) != 0 {
		t.Fatalf("%v, %d downloads", err, len(lfs.Downloads()))
	}
	lie := strings.Replace(lfs.Put("lie"), "size 3", "size 9223372036854775807", 1)
	lfsCommit(f.git.Repo("acme/web"), "lie", map[string]string{"a": lie, "b": lfs.Put("true")})
	if _, _, err := f.fetchSource(withLFS("lie")); reason(err) != remote.ReasonRepositoryTooLarge {
		t.Fatalf("%v", err)
	}
	f = setUp(t, Limits{FetchTime: 3 * time.Second})
	lfs = f.git.LFS()
	lfsCommit(f.git.Repo("acme/web"), "main", map[string]string{"a": lfs.Put("content")})
	lfs.Serve(func(_ http.ResponseWriter, r *http.Request, _ string) bool { <-r.Context().Done(); return true })
	_, _, err := f.fetchSource(withLFS("main"))
	if e, ok := remote.AsError(err); !ok || !e.Temporary || !strings.Contains(e.Message, "longer than") {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := f.mirrors.Fetch(ctx, withLFS("main")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
}

func TestLFS_damagedObjectIsFetchedAnew(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	lfsCommit(f.git.Repo("acme/web"), "main", map[string]string{"a": lfs.Put("content")})
	if _, _, err := f.fetchSource(withLFS("main")); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(f.dir, "mirrors", "*", "*", "lfs", "*", "*", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	must(t, os.WriteFile(kept[0], []byte("CONTENT"), 0o600))
	if _, _, err := f.fetchSource(withLFS("main")); !errors.Is(err, program.ErrDamaged) {
		t.Fatalf("%v", err)
	}
	if dir, _, err := f.fetchSource(withLFS("main")); err != nil || filesIn(t, dir)["a"] != "content" {
		t.Fatalf("%v", err)
	}
	must(t, os.Truncate(kept[0], 3))
	if dir, _, err := f.fetchSource(withLFS("main")); err != nil || filesIn(t, dir)["a"] != "content" {
		t.Fatalf("%v", err)
	}
	// Kept objects that nobody used lately make room; others stay.
	old := time.Now().Add(-2 * objects.InUse)
	must(t, os.Chtimes(kept[0], old, old))
	if freed, err := objects.Prune(filepath.Join(filepath.Dir(f.gitDir()), "lfs"), 1); err != nil || freed != 7 {
		t.Fatal(freed, err)
	}
	if _, _, err := f.fetchSource(withLFS("main")); err != nil {
		t.Fatal(err)
	}
	if freed, err := objects.Prune(filepath.Join(filepath.Dir(f.gitDir()), "lfs"), 1); err != nil || freed != 0 {
		t.Fatal(freed, err)
	}
}

func TestLFS_manyObjectsComeInBatches(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	lfs := f.git.LFS()
	in, want := new(strings.Builder), map[string]string{}
	fmt.Fprint(in, "commit refs/heads/main\ncommitter Jane Developer <jane@example.test> 1800000000 +0000\ndata 1\nx\n")
	fmt.Fprintf(in, "M 100644 inline .gitattributes\ndata %d\n%s\n", len(declareAll), declareAll)
	want[".gitattributes"] = declareAll
	for i := range 2*objects.BatchSize + 1 {
		name := fmt.Sprintf("f%03d", i)
		want[name] = "content of " + name
		p := lfs.Put(want[name])
		fmt.Fprintf(in, "M 100644 inline %s\ndata %d\n%s\n", name, len(p), p)
	}
	f.git.Repo("acme/web").Input(in.String(), "fast-import", "--quiet")
	dir, _, err := f.fetchSource(withLFS("main"))
	if err != nil || lfs.Batches() != 3 {
		t.Fatal(err, lfs.Batches())
	}
	same(t, filesIn(t, dir), want)
}
