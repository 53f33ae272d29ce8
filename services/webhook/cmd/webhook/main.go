// Command webhook is the webhook service: webhooks at Bitbucket, their deliveries, push events.
package main

import (
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/webhook"
)

func main() { servicemain.Main(webhook.Spec()) }
