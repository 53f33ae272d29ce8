package e2e

import (
	"fmt"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// People connect over a Redis that sentinels name and over a cluster of three masters, and connect again within
// seconds after a master was killed and another server has its place.
func TestConnect_overARedisThatFailsOver(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (url string, kill func()){
		"sentinel": func(t *testing.T) (string, func()) {
			s := testkit.RealSentinelRedis(t, testkit.RedisSetup{})
			return s.URL(), s.KillMaster
		},
		"cluster": func(t *testing.T) (string, func()) {
			c := testkit.RealClusterRedis(t, testkit.RedisSetup{}, 1)
			return c.URL(), func() {
				c.Nodes[0].Kill()
				c.AwaitWhole()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, kill := start(t)
			s := &shared{planted: map[string]string{}, stack: startProcess(t, "info", func(s *allinone.Settings) { s.RedisURL = seal.NewSecret(url) })}
			s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
			// Of several handshakes each node of a cluster has some.
			for i := range 4 {
				s.tenant(t, fmt.Sprintf("%s-before-%d", name, i))
			}
			kill()
			there := time.Now()
			n := s.unconnected(t, name+"-after")
			testkit.Eventually(t, 5*time.Second, func() error {
				if p, err := n.api.try("POST", n.path("/integrations/bitbucket:connect"), object{}, nil); err != nil || p != nil {
					return fmt.Errorf("connecting after the failover: %+v, %w", p, err)
				}
				return nil
			})
			t.Logf("a connect begins %v after another server has the place", time.Since(there).Round(time.Millisecond))
			for i := range 4 {
				s.tenant(t, fmt.Sprintf("%s-after-%d", name, i))
			}
		})
	}
}
