package allinone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"devpilot.io/bitbucket/services/allinone/internal/scenario"
)

// A scenario (--emulator --scenario) is a story that is played on the product when it serves; what of it must be there
// before is here.

// openScenario claims the data directory, before anything is put into it.
func (p *Product) openScenario() error {
	if p.settings.Scenario == "" {
		return nil
	}
	end, err := p.settings.scenarioEnd()
	if err != nil {
		return err
	}
	p.story, err = scenario.Open(p.dir.path, p.settings.Scenario, end)
	switch {
	case errors.Is(err, scenario.ErrInUse):
		return fmt.Errorf("another Devpilot process uses the data directory %s: stop that one, or choose another directory with --data-dir (DEVPILOT_DATA_DIR)", p.dir.path)
	case errors.Is(err, scenario.ErrOther):
		return fmt.Errorf("--scenario (DEVPILOT_SCENARIO) needs a data directory of its own, and %s is none (%w): choose another with --data-dir (DEVPILOT_DATA_DIR)", p.dir.path, err)
	case err != nil:
		return err
	}
	if p.settings.Workers == 0 {
		p.settings.Workers = scenarioWorkers // one is held
	}
	return nil
}

// openDoor makes the identity provider of the scenario, and has the gateway know it.
func (p *Product) openDoor() (err error) {
	if p.story == nil {
		return nil
	}
	if p.door, err = scenario.NewDoor(p.story, p.settings.BitbucketSiteURL, p.publicURL); err != nil {
		return err
	}
	p.settings.IdentityProvidersFile, err = p.door.Settings()
	return err
}

// withDoor puts the identity provider beside the emulator.
func (p *Product) withDoor(emulator http.Handler) http.Handler {
	if p.door == nil {
		return emulator
	}
	return p.door.Beside(emulator)
}

// holdScenario puts up again what holds the apps of a story that was told: faults do not outlive the emulator.
func (p *Product) holdScenario(ctx context.Context) error {
	if p.story == nil || !p.story.Finished() {
		return nil
	}
	return scenario.Hold(ctx, p.emulated.Control())
}

// withClock shows the times of a story that has a fixed end.
func (p *Product) withClock(api http.Handler) http.Handler {
	if p.story == nil || p.story.End().IsZero() {
		return api
	}
	return scenario.NewClock(p.story).Handler(api)
}

// playScenario tells the story, unless it was told in this data directory, and says what there is.
func (p *Product) playScenario(ctx context.Context) error {
	if p.story == nil {
		return nil
	}
	out := p.Out
	if out == nil {
		out = io.Discard
	}
	if !p.story.Finished() {
		fmt.Fprintf(out, "\nThe scenario %q is being played:\n", p.settings.Scenario)
		stage := scenario.Stage{Record: p.story, Public: p.publicURL, Bucket: p.emulated.Control(), Out: out}
		if err := scenario.Play(ctx, stage); err != nil {
			return fmt.Errorf("the scenario could not be played to its end; the next start begins it anew: %w", err)
		}
	}
	scenario.Table(out, p.publicURL, p.settings.BitbucketSiteURL, p.story.End())
	return nil
}
