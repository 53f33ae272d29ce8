package ingress

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

// BenchmarkIngest answers pushes of about 2 KiB, 64 at a time, from the request to the 202: signature,
// parsing, compression and one synced write to disk, shared by those that wait ("packed") or not
// ("one_by_one"). "nothing_stored" is the ceiling that the rest of the path sets.
func BenchmarkIngest(b *testing.B) {
	content := strings.Replace(body("main"), `"hash":`, `"message":"`+strings.Repeat("why this change was made ", 75)+`","hash":`, 1)
	run := func(b *testing.B, h http.Handler) {
		b.SetBytes(int64(len(content)))
		b.SetParallelism(32) // times 2 CPUs
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if got := send(h, content); got.status != http.StatusAccepted {
					b.Errorf("answered %d %s", got.status, got.raw)
				}
			}
		})
		b.StopTimer()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	}
	b.Run("nothing_stored", func(b *testing.B) { run(b, newWorld().handler(b)) })
	for name, most := range map[string]int{"packed": inbox.MaxDeliveries, "one_by_one": 1} {
		b.Run(name, func(b *testing.B) {
			server := testkit.NATSWith(b, engine.NATSConfig{CanaryInterval: -1, StoreDir: b.TempDir()})
			_, js := server.Connect()
			if _, err := stream.Ensure(b.Context(), js, inbox.Definition, stream.Options{}); err != nil {
				b.Fatal(err)
			}
			w := inbox.NewWriter(inbox.Config{Publish: stream.Publisher{JS: js}.Publish, Logger: logs.Discard(), MaxDeliveries: most})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			run(b, newWorld().handler(b, func(c *Config) { c.Inbox = w }))
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}
