package e2e

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/testkit"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // a benchmark ends
	}
	return v
}

func readAll(b testing.TB, resp *http.Response) string {
	b.Helper()
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		b.Fatalf("status %d, %v: %s", resp.StatusCode, err, raw)
	}
	return string(raw)
}

// hashOf is a commit's hash by number.
func hashOf(i int) string { return fmt.Sprintf("%040x", i+0xabcdef) }

// padded makes a body as large as Bitbucket's usual ones, about 3.4 KB.
func padded(body []byte) []byte {
	var o object
	if err := json.Unmarshal(body, &o); err != nil {
		panic(err) // it was made here
	}
	var commits []object
	for i := range 5 {
		commits = append(commits, object{
			"type": "commit", "hash": hashOf(i), "message": "A commit with a message of a usual length\n", "date": "2026-03-02T09:00:00+00:00",
			"author":  object{"type": "author", "raw": "Jane Developer <jane@example.test>", "user": object{"display_name": "Jane Developer", "nickname": "jane", "type": "user"}},
			"parents": []object{{"type": "commit", "hash": hashOf(i + 1)}},
			"links":   object{"self": object{"href": "https://api.example.test/2.0/repositories/acme/web/commit/" + hashOf(i)}, "html": object{"href": "https://example.test/acme/web/commits/" + hashOf(i)}},
		})
	}
	o["push"].(map[string]any)["changes"].([]any)[0].(map[string]any)["commits"] = commits
	return must(json.Marshal(o))
}

// request makes the delivery's request.
func (h handmade) request(b testing.TB) *http.Request {
	req := must(http.NewRequestWithContext(b.Context(), http.MethodPost, h.url, bytes.NewReader(h.body)))
	mac := hmac.New(sha256.New, []byte(h.secret))
	mac.Write(h.body)
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-Event-Key": "repo:push", "X-Request-UUID": uuid.NewString(), "X-Hook-UUID": uuid.NewString(),
		"X-Attempt-Number": "1", "User-Agent": "Bitbucket-Webhooks/2.0", "X-Hub-Signature": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
	} {
		req.Header.Set(name, value)
	}
	return req
}

// post sends the delivery, which must be taken.
func (h handmade) post(b testing.TB) {
	b.Helper()
	resp, err := speedClient.Do(h.request(b))
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	if raw, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode/100 != 2 {
		b.Errorf("a delivery is answered %d %s, %v", resp.StatusCode, raw, err)
	}
}

var speedClient = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 300}}

// measured is what a load came to.
type measured struct {
	done int64
	took time.Duration
	p99  float64 // ms
}

func (m measured) rate() float64 { return float64(m.done) / m.took.Seconds() }

// load sends requests over some connections for a while, or until there are none (nil). Every one must
// be answered with 2xx.
func (p *timed) load(connections int, during time.Duration, next func() *http.Request) measured {
	p.b.Helper()
	defer p.profiled(min(during, 3*time.Second))()
	var done atomic.Int64
	var mu sync.Mutex
	var all []time.Duration
	var workers sync.WaitGroup
	began := time.Now()
	for range connections {
		workers.Go(func() {
			var took []time.Duration
			for time.Since(began) < during {
				req := next()
				if req == nil {
					break
				}
				at := time.Now()
				resp, err := speedClient.Do(req)
				if err != nil {
					p.b.Error(err)
					return
				}
				raw, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode/100 != 2 {
					p.b.Errorf("%s is answered %d %.200s, %v", req.URL.Path, resp.StatusCode, raw, err)
					return
				}
				took = append(took, time.Since(at))
				done.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	workers.Wait()
	if p.b.Failed() || len(all) == 0 {
		p.b.FailNow()
	}
	return measured{done: done.Load(), took: time.Since(began), p99: quantile(all, 0.99)}
}

// longest bounds a load that is made of a number of requests.
const longest = time.Minute

// deliveries are made before a load's clock runs: to make and sign one takes as long as it takes to
// receive it.
func (p *timed) deliveries(h handmade, repo repository, from, n int) []handmade {
	made := make([]handmade, n)
	for i := range made {
		made[i] = h
		made[i].body = padded(pushOf(repo, "unwatched", hashOf(from+i)))
	}
	return made
}

// each hands out the requests of deliveries, once.
func (p *timed) each(deliveries []handmade) func() *http.Request {
	requests := make([]*http.Request, len(deliveries))
	for i, d := range deliveries {
		requests[i] = d.request(p.b)
	}
	var taken atomic.Int64
	return func() *http.Request {
		if i := int(taken.Add(1)) - 1; i < len(requests) {
			return requests[i]
		}
		return nil
	}
}

// syncedPublishes stores the bodies of deliveries one by one, each with a write of its own that the disk
// has kept: what no server that does so can be faster than.
func (p *timed) syncedPublishes(connections int, deliveries []handmade) measured {
	p.b.Helper()
	_, js := testkit.NATSWith(p.b, engine.NATSConfig{CanaryInterval: -1, StoreDir: p.b.TempDir()}).Connect()
	if _, err := js.CreateStream(p.b.Context(), jetstream.StreamConfig{Name: "SYNCED", Subjects: []string{"synced"}, Storage: jetstream.FileStorage}); err != nil {
		p.b.Fatal(err)
	}
	var taken, done atomic.Int64
	var workers sync.WaitGroup
	began := time.Now()
	for range connections {
		workers.Go(func() {
			for i := taken.Add(1) - 1; i < int64(len(deliveries)); i = taken.Add(1) - 1 {
				if _, err := js.Publish(p.b.Context(), "synced", deliveries[i].body); err != nil {
					p.b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	workers.Wait()
	if p.b.Failed() {
		p.b.FailNow()
	}
	return measured{done: done.Load(), took: time.Since(began)}
}

// plainServerEnv makes a process of this program the server that the product is compared with.
const (
	plainServerEnv = "E2E_PLAIN_SERVER"
	plainStoreEnv  = "E2E_PLAIN_STORE" // where it stores
)

// servePlain serves what costs least: a webhook that checks a signature and parses, the same with one
// synced publish of each delivery, and a document.
func servePlain(address string) {
	var document atomic.Pointer[any]
	mux := http.NewServeMux()
	take := func(store func(context.Context, []byte) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			raw, err := io.ReadAll(r.Body)
			mac := hmac.New(sha256.New, []byte(r.PathValue("secret")))
			mac.Write(raw)
			var v any
			if err != nil || "sha256="+hex.EncodeToString(mac.Sum(nil)) != r.Header.Get("X-Hub-Signature") || json.Unmarshal(raw, &v) != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if err := store(r.Context(), raw); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.WriteHeader(http.StatusAccepted)
			_ = json.NewEncoder(w).Encode(map[string]string{"message": "taken"}) // who is gone does not read it
		}
	}
	mux.HandleFunc("POST /webhook/{secret}", take(func(context.Context, []byte) error { return nil }))
	mux.HandleFunc("POST /synced/{secret}", take(plainStore(os.Getenv(plainStoreEnv))))
	mux.HandleFunc("PUT /app", func(_ http.ResponseWriter, r *http.Request) {
		var v any
		if err := json.NewDecoder(r.Body).Decode(&v); err == nil {
			document.Store(&v)
		}
	})
	mux.HandleFunc("GET /app", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(*document.Load()) // who is gone does not read it
	})
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: time.Minute}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
}

// plainStore stores each delivery with a publish of its own, on an embedded server set as the product's.
func plainStore(dir string) func(context.Context, []byte) error {
	server := must(engine.StartNATS(context.Background(), engine.NATSConfig{StoreDir: dir, CanaryInterval: -1}))
	nc := must(nats.Connect(server.ClientURL(), server.ConnectOption()))
	js := must(jetstream.New(nc))
	must(js.CreateStream(context.Background(), jetstream.StreamConfig{Name: "PLAIN", Subjects: []string{"plain"}, Storage: jetstream.FileStorage}))
	return func(ctx context.Context, raw []byte) error {
		_, err := js.Publish(ctx, "plain", raw)
		return err
	}
}

// startPlain starts that server in a process of its own and returns its address.
func startPlain(b testing.TB) string {
	b.Helper()
	address := loopback(b)
	cmd := exec.CommandContext(b.Context(), must(os.Executable())) // this program
	cmd.Env = append(cleanEnviron(), plainServerEnv+"="+address, plainStoreEnv+"="+b.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	testkit.Eventually(b, timeout, func() error {
		resp, err := http.Post("http://"+address+"/webhook/x", "application/json", strings.NewReader("{}"))
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	})
	return "http://" + address
}

// servePlainly gives the plain server the document to print.
func servePlainly(b testing.TB, address string, document any) {
	b.Helper()
	req := must(http.NewRequestWithContext(b.Context(), http.MethodPut, address+"/app", bytes.NewReader(must(json.Marshal(document)))))
	readAll(b, must(http.DefaultClient.Do(req)))
}
