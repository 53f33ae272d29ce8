package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkPushToLive measures a repository of 100 files in the product as it ships, webhook, NATS
// with every write synced and all: from the end of `git push` until current points at the commit.
func BenchmarkPushToLive(b *testing.B) {
	const files, pushes = 100, 15
	s := &shared{stack: startInProcess(b), planted: map[string]string{}}
	s.owner = newBrowser(b, s.url()).signIn(s.adminToken())
	n := s.tenant(b, "speed")
	repo := s.site().repository(b, "speed", "site")
	clone := s.site().clone(b, repo)
	for i := range files {
		name := filepath.Join(clone.dir, fmt.Sprintf("file-%03d.txt", i))
		if err := os.WriteFile(name, fmt.Appendf(nil, "file %d\n", i), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	clone.git("add", ".")
	n.app("web", repo, "main")
	hash := clone.commit("index.html", "<h1>First</h1>\n")
	clone.git("push", "--quiet", "origin", "HEAD:main")
	n.live("web", hash)

	marker := filepath.Join(s.releases(), "apps", n.workspace, "web", "current", "index.html")
	var took []time.Duration
	for i := range pushes {
		text := fmt.Sprintf("<h1>Push %d</h1>\n", i)
		hash = clone.commit("index.html", text)
		clone.git("push", "--quiet", "origin", "HEAD:main")
		pushed := time.Now()
		for tick := time.Tick(time.Millisecond); ; <-tick {
			if got, err := os.ReadFile(marker); err == nil && string(got) == text {
				break
			}
			if time.Since(pushed) > timeout {
				b.Fatal("the push does not go live")
			}
		}
		took = append(took, time.Since(pushed))
		n.live("web", hash)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms/push-to-live")
	b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "ms-worst/push-to-live")
	b.ReportMetric(0, "ns/op")
	fmt.Printf("push to live, %d files, one changed, %d pushes: median %v, worst %v\n", files+1, pushes,
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}
