package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// routingKeepsUpForAMinute measures how long routing takes at a rate that a busy installation has all day:
// so much of what a server takes that checks, parses and forgets.
func routingKeepsUpForAMinute(p *timed) []figure {
	const (
		share       = 0.6
		connections = 64
		during      = time.Minute
		within      = "1" // second
	)
	repo, _ := p.watched("web", 0)
	_, h := p.hook("web")
	plain := startPlain(p.b)
	forgotten := h
	forgotten.url = plain + "/webhook/" + h.secret
	ceiling := p.load(connections, 5*time.Second, p.each(p.deliveries(forgotten, repo, 0, 20_000))).rate()
	bodies := p.deliveries(h, repo, 0, 2_000)
	all, before := p.routed("+Inf"), p.routed(within)
	sent := p.paced(connections, share*ceiling, during, bodies)
	for began := time.Now(); p.routed("+Inf")-all < float64(sent); p.pause(100 * time.Millisecond) {
		if time.Since(began) > 5*time.Minute {
			p.b.Fatalf("%v of %d deliveries are routed", p.routed("+Inf")-all, sent)
		}
	}
	return []figure{
		{fmt.Sprintf("for a minute at %v of a plain server's rate: sent", share), float64(sent) / during.Seconds(), "/s", fmt.Sprintf("≥ %.4g /s", share*ceiling)},
		{"… routed within a second", 100 * (p.routed(within) - before) / float64(sent), "%", "100 %"},
	}
}

// routed is how many deliveries were routed within so many seconds, as the product counts them.
func (p *timed) routed(within string) (n float64) {
	p.b.Helper()
	for line := range strings.Lines(readAll(p.b, must(http.Get(p.daemon.ops+"/metrics")))) {
		if strings.HasPrefix(line, "devpilot_webhook_router_lag_seconds_bucket{") && strings.Contains(line, `le="`+within+`"`) {
			_, value, _ := strings.Cut(line, "} ")
			if _, err := fmt.Sscan(value, &n); err != nil {
				p.b.Fatal(err)
			}
		}
	}
	return n
}

// paced sends deliveries at a rate, their bodies over and over. Every one must be taken.
func (p *timed) paced(connections int, rate float64, during time.Duration, bodies []handmade) (sent int64) {
	p.b.Helper()
	defer p.profiled(10 * time.Second)()
	var turn, done atomic.Int64
	var workers sync.WaitGroup
	began := time.Now()
	for range connections {
		workers.Go(func() {
			for time.Since(began) < during && !p.b.Failed() {
				i := turn.Add(1) - 1
				<-time.After(time.Until(began.Add(time.Duration(float64(i) / rate * float64(time.Second)))))
				req := bodies[int(i)%len(bodies)].request(p.b)
				req.Header.Set("X-Request-UUID", uuid.NewString())
				resp, err := speedClient.Do(req)
				if err != nil {
					p.b.Error(err)
					return
				}
				raw, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode/100 != 2 {
					p.b.Errorf("a delivery is answered %d %.200s, %v", resp.StatusCode, raw, err)
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
	return done.Load()
}
