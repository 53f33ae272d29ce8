package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/logs"
)

// lookEvery is how often the files are looked at. Their contents count: what mounts Secrets exchanges links, of which
// notifications tell nothing.
const lookEvery = 5 * time.Second

// Config is what Open needs.
type Config struct {
	Files
	Service    string                // whose certificate it is; empty for a web server's
	Logger     *slog.Logger          // is told of changes, and of connections that were refused
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // nil: time.Now
}

// Certificate is one that follows its files: a new connection uses what was read last. It is safe for concurrent use.
type Certificate struct {
	cfg     Config
	current atomic.Pointer[pair]
	metrics metrics

	mu     sync.Mutex
	sum    [sha256.Size]byte // of the contents that were read last
	failed string            // why these are not used; empty where they are
}

// Open reads the files. The error is a sentence that names the file.
func Open(cfg Config) (*Certificate, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		return nil, errors.New("transport: Config.Logger is missing")
	}
	c := &Certificate{cfg: cfg}
	read, err := cfg.read()
	if err != nil {
		return nil, err
	}
	p, err := cfg.use(read, cfg.Service, cfg.Now())
	if err != nil {
		return nil, err
	}
	c.sum = read.sum
	c.current.Store(p)
	return c, c.register()
}

// Ends is when the certificate in use ends.
func (c *Certificate) Ends() time.Time { return c.current.Load().certificate.Leaf.NotAfter }

// Run reads the files again when they change, until ctx is done.
func (c *Certificate) Run(ctx context.Context) error {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			c.Reload(ctx)
		}
	}
}

// Reload looks at the files now. Where they cannot be used the certificate in use stays, which is logged once.
func (c *Certificate) Reload(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	read, err := c.cfg.read()
	var p *pair
	if err == nil {
		if read.sum == c.sum && c.failed == "" {
			return
		}
		p, err = c.cfg.use(read, c.cfg.Service, c.cfg.Now())
	}
	if err != nil {
		if c.failed != err.Error() {
			c.failed = err.Error()
			c.metrics.reloads.WithLabelValues("refused").Inc()
			c.cfg.Logger.ErrorContext(ctx, "the new certificate cannot be used: the one before stays until it ends", slog.Time(logs.KeyUntil, c.Ends().UTC()), logs.Err(err))
		}
		return
	}
	if c.failed != "" && read.sum == c.sum {
		c.failed = "" // as it was before
		return
	}
	c.sum, c.failed = read.sum, ""
	c.current.Store(p)
	c.metrics.reloads.WithLabelValues("used").Inc()
	c.cfg.Logger.InfoContext(ctx, "a new certificate is in use", slog.Time(logs.KeyUntil, c.Ends().UTC()))
}

func (c *Certificate) failing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed != ""
}

// HTTP is for a web server; nil of no certificate.
func (c *Certificate) HTTP() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.current.Load().certificate, nil },
	}
}

type metrics struct {
	reloads *prometheus.CounterVec // by result
	refused prometheus.Counter
}

// register makes the metrics. What they are about is a label: gRPC between services, or HTTP.
func (c *Certificate) register() error {
	use := "services"
	if c.cfg.Service == "" {
		use = "http"
	}
	c.metrics.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "devpilot_tls_reloads_total", Help: "New contents of the certificate's files: used, or refused.", ConstLabels: prometheus.Labels{"use": use},
	}, []string{"result"})
	c.metrics.refused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "devpilot_tls_refused_connections_total", Help: "Connections of other services that were refused because of their certificate.", ConstLabels: prometheus.Labels{"use": use},
	})
	for _, result := range []string{"used", "refused"} {
		c.metrics.reloads.WithLabelValues(result)
	}
	if c.cfg.Registerer == nil {
		return nil
	}
	all := []prometheus.Collector{
		c.metrics.reloads,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "devpilot_tls_certificate_days_left", Help: "Days until the certificate in use ends.", ConstLabels: prometheus.Labels{"use": use},
		}, func() float64 { return c.days(c.Ends()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "devpilot_tls_reload_failing", Help: "1 while the certificate's files hold what cannot be used.", ConstLabels: prometheus.Labels{"use": use},
		}, func() float64 {
			if c.failing() {
				return 1
			}
			return 0
		}),
	}
	if c.cfg.Service != "" {
		all = append(all, c.metrics.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "devpilot_tls_authority_days_left", Help: "Days until the last of the authorities ends.", ConstLabels: prometheus.Labels{"use": use},
		}, func() float64 { return c.days(c.current.Load().authority) }))
	}
	for _, m := range all {
		if err := c.cfg.Registerer.Register(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *Certificate) days(end time.Time) float64 { return end.Sub(c.cfg.Now()).Hours() / 24 }
