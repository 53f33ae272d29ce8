package engine

import (
	"crypto/rand"
	"crypto/subtle"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// PrivateURL stands for the address of a server that has no listener: good only with an option that dials it.
const PrivateURL = "nats://in-process.invalid"

// access tells those who may do everything on a server without a listener from those who may read its streams. It is safe for concurrent
// use.
type access struct {
	secret string
	writes []string // what readers may publish besides
}

func newAccess(writes []string) *access { return &access{secret: rand.Text(), writes: writes} }

// owner is how the process that runs the server says who it is.
func (a *access) owner(o *nats.Options) error {
	o.Token = a.secret
	return nil
}

// Check implements server.Authentication.
func (a *access) Check(c server.ClientAuthentication) bool {
	if subtle.ConstantTimeCompare([]byte(c.GetOpts().Token), []byte(a.secret)) != 1 {
		c.RegisterUser(&server.User{Username: "reader", Permissions: readPermissions(a.writes)})
	}
	return true
}

// readPermissions let streams be listed and read, and nothing be stored or deleted but by the subjects of writes.
func readPermissions(writes []string) *server.Permissions {
	const api = "$JS.API."
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: append([]string{
			api + "INFO", api + "STREAM.NAMES", api + "STREAM.LIST", api + "STREAM.INFO.*", api + "STREAM.MSG.GET.*",
			// Of consumers, those in memory that a reader makes for itself; $JS.API.CONSUMER.DURABLE is not among them.
			api + "CONSUMER.LIST.*", api + "CONSUMER.INFO.*.*", api + "CONSUMER.CREATE.*.*", api + "CONSUMER.CREATE.*.*.>", api + "CONSUMER.MSG.NEXT.*.*", api + "CONSUMER.DELETE.*.*",
		}, writes...)},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "*._INBOX.>"}},
	}
}
