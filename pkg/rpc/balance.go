package rpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// balancerName is how a service config asks for our balancer.
const balancerName = "devpilot_round_robin"

const (
	// slowCall is how long a call waits before its replica is asked whether it is alive.
	slowCall = time.Second
	// signOfLife is how long a replica has to answer that.
	signOfLife = time.Second
)

// errFrozen is why a try was given up: its replica takes connections and answers nothing.
var errFrozen = errors.New("rpc: the replica gives no sign of life")

//nolint:gochecknoinits // gRPC takes balancers before the first connection only
func init() { balancer.Register(roundRobin{}) }

// roundRobin gives calls to the replicas in turn, without those that are frozen: processes that were
// stopped, or whose machine is gone without a word. Their connections stay open, so that gRPC's own round
// robin goes on with them until keep-alive gives up, and its outlier detection comes with all of xDS.
// Nothing is asked while calls are answered.
type roundRobin struct{}

// Name implements balancer.Builder.
func (roundRobin) Name() string { return balancerName }

// Build implements balancer.Builder.
func (roundRobin) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	ctx, stop := context.WithCancel(context.Background())
	pickers := &pickers{ctx: ctx, nodes: map[balancer.SubConn]*node{}}
	return &closing{base.NewBalancerBuilder(balancerName, pickers, base.Config{HealthCheck: true}).Build(cc, opts), stop}
}

// closing is a balancer that ends what was started for it.
type closing struct {
	balancer.Balancer
	stop context.CancelFunc
}

// Close implements balancer.Balancer.
func (c *closing) Close() {
	c.stop()
	c.Balancer.Close()
}

// pickers makes the pickers of one connection and keeps what is known of its replicas.
type pickers struct {
	ctx   context.Context //nolint:containedctx // ends with the balancer
	next  atomic.Uint64
	nodes map[balancer.SubConn]*node
}

// Build implements base.PickerBuilder; gRPC makes one call at a time.
func (p *pickers) Build(info base.PickerBuildInfo) balancer.Picker {
	for sc, n := range p.nodes {
		if _, ready := info.ReadySCs[sc]; !ready {
			n.leave()
			delete(p.nodes, sc)
		}
	}
	if len(info.ReadySCs) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	out := &picker{next: &p.next}
	for sc := range info.ReadySCs {
		n := p.nodes[sc]
		if n == nil {
			n = newNode(p.ctx, sc)
			p.nodes[sc] = n
		}
		out.nodes = append(out.nodes, n)
	}
	return out
}

// picker picks among the replicas that serve.
type picker struct {
	next  *atomic.Uint64
	nodes []*node
}

// Pick implements balancer.Picker. Where all are frozen, all are tried.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	all := uint64(len(p.nodes))
	first := p.next.Add(1)
	n := p.nodes[first%all]
	for i := range all {
		if other := p.nodes[(first+i)%all]; !other.frozen.Load() {
			n = other
			break
		}
	}
	if t, ok := info.Ctx.Value(tryKey{}).(*try); ok {
		t.node.Store(n)
	}
	return balancer.PickResult{SubConn: n.conn}, nil
}

// node is a connection to a replica.
type node struct {
	conn   balancer.SubConn
	ctx    context.Context //nolint:containedctx // ends with the connection
	leave  context.CancelFunc
	frozen atomic.Bool

	mu     sync.Mutex
	asking chan struct{} // closed with the answer; nil while nobody asks
}

func newNode(ctx context.Context, conn balancer.SubConn) *node {
	n := &node{conn: conn}
	n.ctx, n.leave = context.WithCancel(ctx)
	return n
}

// alive asks the replica for a sign of life; callers who come at the same time share the question. A replica
// that gives none is frozen until it does.
func (n *node) alive() bool {
	n.mu.Lock()
	asking := n.asking
	if asking == nil {
		asking = make(chan struct{})
		n.asking = asking
		go n.ask(asking)
	}
	n.mu.Unlock()
	<-asking
	return !n.frozen.Load()
}

// ask asks until the replica answers, and tells after the first question.
func (n *node) ask(first chan struct{}) {
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.asking = nil
	}()
	probe, done := n.conn.GetOrBuildProducer(probeBuilder{})
	defer done()
	for told := false; ; told = true {
		answered := probe.(*prober).answers(n.ctx)
		n.frozen.Store(!answered)
		if !told {
			close(first)
		}
		if answered {
			return
		}
	}
}

// probeBuilder makes the prober of a connection. All that are equal are one.
type probeBuilder struct{}

// Build implements balancer.ProducerBuilder.
func (probeBuilder) Build(conn any) (balancer.Producer, func()) {
	return &prober{conn.(grpc.ClientConnInterface)}, func() {}
}

// prober asks on one connection.
type prober struct{ conn grpc.ClientConnInterface }

// answers tells whether anything comes back. An error is a sign of life too, and so is the end of the connection,
// which is told to those who wait on it.
func (p *prober) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, signOfLife)
	defer cancel()
	_, err := healthpb.NewHealthClient(p.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return status.Code(err) != codes.DeadlineExceeded
}
