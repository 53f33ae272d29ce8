package checkup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/stream"
)

const (
	permissionsRemedy = "Give the user of this process in NATS the permissions that `devpilot nats-permissions` prints for it, or $JS.API.>, $JS.ACK.>, its inbox and the subjects of the installation (deploy/README.md, Users of NATS)."
	// shownSubjects is how many of the missing subjects are named.
	shownSubjects = 3
)

// subjects are what a user of NATS may and may not do on one side; with no list it may do all.
type subjects struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny"`
}

// permits tells whether a user may use every subject of a pattern.
func (s *subjects) permits(pattern string) bool {
	if s == nil {
		return true
	}
	denied := slices.ContainsFunc(s.Deny, func(deny string) bool {
		return stream.Allows([]string{deny}, pattern) || stream.Allows([]string{pattern}, deny)
	})
	return !denied && (len(s.Allow) == 0 || stream.Allows(s.Allow, pattern))
}

// granted are the permissions of a connection's user.
type granted struct {
	Publish   *subjects `json:"publish"`
	Subscribe *subjects `json:"subscribe"`
}

// deaf tells whether the user may not listen where answers to this process come. NATS says so before it answers the flush.
func deaf(nc *nats.Conn) bool {
	inbox, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return false
	}
	err = nc.FlushTimeout(trialTimeout)
	refused := err == nil && errors.Is(nc.LastError(), nats.ErrPermissionViolation)
	_ = inbox.Unsubscribe() // the connection is closed soon
	return refused
}

func inboxOf(nc *nats.Conn) string {
	if nc.Opts.InboxPrefix != "" {
		return nc.Opts.InboxPrefix
	}
	return "_INBOX"
}

// grantedTo asks NATS for them; nil where the user may do all, or NATS does not say.
func grantedTo(ctx context.Context, nc *nats.Conn) *granted {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	answer, err := nc.RequestWithContext(ctx, "$SYS.REQ.USER.INFO", nil)
	if err != nil {
		return nil
	}
	var info struct {
		Data struct {
			Permissions *granted `json:"permissions"`
		} `json:"data"`
	}
	if json.Unmarshal(answer.Data, &info) != nil {
		return nil
	}
	return info.Data.Permissions
}

// measures tells whether the user may make streams of any name, with which room is measured.
func (c *connection) measures() bool {
	return c.granted == nil || c.granted.Publish.permits("$JS.API.STREAM.CREATE.*")
}

const notMeasured = "The user of this process may not make streams to try it with. As the user operator (devpilot nats-permissions) devpilot doctor does."

// Permissions checks that the user may do what the program does: by what NATS says of it or, where it says nothing or there is no
// bound, on a stream that is deleted again.
func (n *NATS) Permissions(ctx context.Context) Check {
	if c, err := n.connect(); err == nil && c.deaf {
		return Fail(fmt.Sprintf("The user may not subscribe to %s.>, where answers to this process come: it is the user of another service, or nobody's.", inboxOf(c.nc)), permissionsRemedy)
	}
	return n.with(func(c *connection) Check {
		if c.granted == nil {
			return tryPermissions(ctx, c)
		}
		var missing []string
		for _, subject := range n.cfg.Needs.Publish {
			if !c.granted.Publish.permits(subject) {
				missing = append(missing, "publish to "+subject)
			}
		}
		for _, subject := range n.cfg.Needs.Subscribe {
			if !c.granted.Subscribe.permits(subject) {
				missing = append(missing, "subscribe to "+subject)
			}
		}
		if len(missing) == 0 {
			return Well("The user may do all that %s does.", n.cfg.Program)
		}
		found := "The user may not " + strings.Join(missing[:min(len(missing), shownSubjects)], ", ")
		if more := len(missing) - shownSubjects; more > 0 {
			found += fmt.Sprintf(" and %d more", more)
		}
		return Fail(found+".", permissionsRemedy)
	})
}
