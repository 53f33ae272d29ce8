package repo

import (
	"errors"
	"fmt"

	"devpilot.io/bitbucket/pkg/bitbucket"
)

// defaultParallel is how many requests to Bitbucket one listing has in flight at most.
const defaultParallel = 10

// localShare is the part of Bitbucket's limit that a replica may use by itself while Redis is away.
// Half of it may be spent at once, and must hold one list of ten thousand repositories and their permissions
// (201 calls); no other service calls so much.
const localShare = 0.42

// Config is what an operator sets.
type Config struct {
	// SiteURL and APIURL are the Bitbucket that tokens may be sent to. Connections made with
	// another one are refused.
	SiteURL, APIURL string
	// ClientID is the key of the OAuth consumer: Bitbucket counts calls per consumer, so all
	// replicas that use it share one budget. It may be empty where no consumer is configured yet.
	ClientID string
	// Parallel is how many requests one listing has in flight at most; 0 for the default.
	Parallel int
}

// site checks the addresses.
func (c Config) site() (bitbucket.Site, error) {
	if c.SiteURL == "" || c.APIURL == "" {
		return bitbucket.Site{}, errors.New("repo: Config.SiteURL or Config.APIURL is missing")
	}
	site, err := bitbucket.NewSite(c.SiteURL, c.APIURL)
	if err != nil {
		return bitbucket.Site{}, fmt.Errorf("repo: %w", err)
	}
	return site, nil
}
