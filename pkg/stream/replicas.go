package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/logs"
)

// clusterReplicas is how many replicas a stream has on a cluster where nothing else is said: with three
// servers one may be lost.
const clusterReplicas = 3

// JetStream API error codes that nats.go gives no name to.
const (
	codeNoPeers              = 10005 // of a cluster: too few servers, or none with enough room
	codeReplicasNotSupported = 10074 // of a single server
)

func clustered(js jetstream.JetStream) bool { return js.Conn().ConnectedClusterName() != "" }

// Wished is how many replicas a stream has that is made now, as Ensure makes it; fewer is how many it has where TooFewServers
// says that there are not as many servers, and 0 where an operator wants no fewer.
func Wished(js jetstream.JetStream) (replicas, fewer int) {
	if SettingsOf(js).Replicas > 0 {
		return SettingsOf(js).Replicas, 0
	}
	return wished(js), 1
}

// TooFewServers tells that NATS has fewer servers than a stream was to have replicas.
func TooFewServers(err error) bool { return tooFewServers(err) }

// TooLarge tells that NATS has no room for a stream.
func TooLarge(err error) bool { return tooLarge(err) }

// wished is how many replicas there ought to be.
func wished(js jetstream.JetStream) int {
	switch replicas := SettingsOf(js).Replicas; {
	case replicas > 0:
		return replicas
	case clustered(js):
		return clusterReplicas
	}
	return 1
}

// tooFewServers tells that the cluster has fewer servers than replicas are wanted, or is none. One that
// lacks a server that it knows is expected to get it back.
func tooFewServers(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	return api.ErrorCode == codeReplicasNotSupported ||
		api.ErrorCode == codeNoPeers && !noStorage(api) && !strings.Contains(api.Description, "peer offline")
}

// noStorage tells that a cluster's servers have too little room.
func noStorage(api *jetstream.APIError) bool {
	return api.ErrorCode == codeNoPeers && strings.Contains(api.Description, "insufficient storage")
}

// tooFew says that the replicas that were asked for cannot be.
type tooFew struct {
	stream   string
	replicas int
	single   bool
	err      error
}

func (e *tooFew) Error() string {
	if e.single {
		return fmt.Sprintf("the stream %s cannot have %d replicas on a single NATS server: set DEVPILOT_NATS_REPLICAS to 1 or leave it out, or run NATS as a cluster", e.stream, e.replicas)
	}
	return fmt.Sprintf("the stream %s cannot have %d replicas on so small a NATS cluster: start more of its servers, or leave DEVPILOT_NATS_REPLICAS out. NATS says: %v", e.stream, e.replicas, e.err)
}

// Is makes it permanent on a single server; to a cluster servers may come.
func (e *tooFew) Is(target error) bool { return e.single && target == ErrPermanent }
func (e *tooFew) Unwrap() error        { return e.err }

// raiseReplicas raises the replicas of a stream to what is wished, where the cluster can hold as many, and
// says how many are wished: where that is left to us, no more than can be. It never lowers them.
func raiseReplicas(ctx context.Context, js jetstream.JetStream, s jetstream.Stream, wish int) (jetstream.Stream, int, error) {
	cfg := s.CachedInfo().Config
	have, auto := cfg.Replicas, SettingsOf(js).Replicas == 0
	if have >= wish {
		if auto {
			wish = have
		}
		return s, wish, nil
	}
	cfg.Replicas = wish
	raised, err := js.UpdateStream(ctx, cfg)
	var api *jetstream.APIError
	switch {
	case err == nil:
		return raised, wish, nil
	case tooFewServers(err) && auto:
		return s, have, nil
	case errors.As(err, &api) && (api.ErrorCode == codeNoPeers || api.ErrorCode == codeReplicasNotSupported):
		return s, wish, nil // what is found differs from what is wished: that is reported
	}
	return nil, 0, fmt.Errorf("raise replicas to %d: %w", wish, err)
}

// Replication tells how many replicas streams have and how many they ought to have, and which are larger than
// they ought to be. One value serves all
// streams of a process; the nil value tells nobody.
type Replication struct {
	found, wished *prometheus.GaugeVec
	warned, sized atomic.Bool // the streams of an installation differ together: one line is enough
}

// NewReplication registers the metrics, or finds them when another part of the process has.
func NewReplication(reg prometheus.Registerer) (*Replication, error) {
	r := &Replication{
		found: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_stream_replicas", Help: "Replicas that a stream or bucket had when this process opened it.",
		}, []string{"stream"}),
		wished: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_stream_replicas_wished", Help: "Replicas that it ought to have, by the settings of this process and the servers of the cluster.",
		}, []string{"stream"}),
	}
	var err error
	if r.found, err = register(reg, r.found); err != nil {
		return nil, err
	}
	if r.wished, err = register(reg, r.wished); err != nil {
		return nil, err
	}
	return r, nil
}

// report tells of a stream that was opened.
func (r *Replication) report(ctx context.Context, s jetstream.Stream, wished int, logger *slog.Logger) {
	cfg := s.CachedInfo().Config
	if r == nil {
		return
	}
	r.found.WithLabelValues(cfg.Name).Set(float64(cfg.Replicas))
	r.wished.WithLabelValues(cfg.Name).Set(float64(wished))
	if cfg.Replicas != wished && !r.warned.Swap(true) {
		logger.WarnContext(ctx, "a stream has another number of replicas than is wished, perhaps others too: devpilot_stream_replicas tells. More are kept; fewer are raised at a start when the cluster can hold as many",
			slog.String(logs.KeyStream, cfg.Name), slog.Int(logs.KeyReplicas, cfg.Replicas), slog.Int(logs.KeyWished, wished))
	}
}

// size tells of a stream that is larger than its share.
func (r *Replication) size(ctx context.Context, s jetstream.Stream, share int64, logger *slog.Logger) {
	have := s.CachedInfo().Config.MaxBytes
	if r == nil || share == 0 || larger(have, share) == share || r.sized.Swap(true) {
		return
	}
	logger.WarnContext(ctx, "a stream is larger than the DEVPILOT_STREAMS_MIB of this process makes it, perhaps others too: they stay so. Give all processes of the installation the same number; streams are made smaller with NATS's own tool",
		slog.String(logs.KeyStream, s.CachedInfo().Config.Name), slog.Int64(logs.KeyBytes, have), slog.Int64(logs.KeyWished, share))
}
