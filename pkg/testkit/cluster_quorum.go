package testkit

import (
	"fmt"
	"strings"
	"time"
)

// Stop ends one server; its files stay.
func (c *NATSCluster) Stop(i int) {
	if s := c.servers[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		c.servers[i] = nil
	}
}

// Start brings a server back that was stopped.
func (c *NATSCluster) Start(i int) {
	c.t.Helper()
	c.start(i)
}

// StepDown has the leader of a stream hand over, and waits until the stream has a leader again.
func (c *NATSCluster) StepDown(stream string) {
	c.t.Helper()
	nc, js := c.Connect()
	defer nc.Close()
	answer, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, 10*time.Second)
	if err != nil || strings.Contains(string(answer.Data), `"error"`) {
		c.t.Fatalf("have the leader of %s step down: %v, %v", stream, answer, err)
	}
	Eventually(c.t, startTimeout, func() error {
		s, err := js.Stream(c.t.Context(), stream)
		if err != nil {
			return err
		}
		if s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == "" {
			return fmt.Errorf("%s has no leader", stream)
		}
		return nil
	})
}
