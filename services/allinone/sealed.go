package allinone

import (
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/sealed"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/auth"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/webhook"
)

// Sealed is what a service keeps sealed in NATS.
func Sealed(service string) []sealed.Place {
	return map[string][]sealed.Place{
		"auth": auth.Sealed(), "webhook": webhook.Sealed(), "deployer": deployer.Sealed(), "gateway": gateway.Sealed(),
	}[service]
}

// guestWrites are the subjects by which devpilot keyset seals anew what the running program has stored.
func guestWrites(i stream.Installation) []string {
	out := []string{i.Subject("$KV." + installation.Bucket + ".>")}
	for _, service := range Sealers() {
		for _, p := range Sealed(service) {
			out = append(out, i.Subject("$KV."+p.Bucket+".>"))
			if p.Erases {
				out = append(out, "$JS.API.STREAM.MSG.DELETE."+i.Stream(kv.StreamName(p.Bucket)))
			}
		}
	}
	return out
}
