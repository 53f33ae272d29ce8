package allinone

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/allinone/internal/scenario"
)

// The default addresses (DESIGN.md#running). The product is on 127.0.0.1 and the emulator on
// localhost: to a browser these are two sites, as in life, so cookie rules are really tested.
const (
	DefaultListen    = "127.0.0.1:8080"
	DefaultOpsListen = "127.0.0.1:8090"
	DefaultDataDir   = ".devpilot"
)

// Settings are the flags and variables of the all-in-one process, to embed in a kong struct. Stores
// that are not named are embedded.
type Settings struct {
	servicemain.LogFlags          `embed:""`
	servicemain.OpsFlags          `embed:""`
	servicemain.HTTPListenFlags   `embed:""`
	servicemain.PlaintextFlags    `embed:""`
	servicemain.StoreFlags        `embed:""`
	servicemain.InstallationFlags `embed:""`
	servicemain.KeyFlags          `embed:""`
	servicemain.BitbucketFlags    `embed:""`
	servicemain.PublicFlags       `embed:""`
	servicemain.WebFlags          `embed:""`
	servicemain.PeopleFlags       `embed:""`
	servicemain.DataFlags         `embed:""`
	servicemain.WorkerFlags       `embed:""`
	servicemain.HookFlags         `embed:""`
	servicemain.LiveFlags         `embed:""`
	servicemain.EmulatorFlags     `embed:""`
	servicemain.ReconcileFlags    `embed:""`
	servicemain.WebhookFlags      `embed:""`
	servicemain.NotifyFlags       `embed:""`
	servicemain.ActivityFlags     `embed:""`
	servicemain.ProgramFlags      `embed:""`
}

// CheckEmulator refuses settings of an emulator that is not started: they would do nothing.
func (s *Settings) CheckEmulator() error {
	if !s.Emulator && s.EmulatorScenario != "" {
		return errors.New("--emulator-scenario (DEVPILOT_EMULATOR_SCENARIO) says what the Bitbucket emulator starts with, and none is started: add --emulator, or leave the scenario out")
	}
	return s.checkScenario()
}

// checkScenario refuses a scenario beside what it brings itself, or without what it is played on.
func (s *Settings) checkScenario() error {
	switch {
	case s.Scenario == "" && s.ScenarioTime != "":
		return errors.New("--scenario-time (DEVPILOT_SCENARIO_TIME) says when the story of --scenario ends, and none is told: add --scenario, or leave the time out")
	case s.Scenario == "":
		return nil
	case !slices.Contains(scenario.Names(), s.Scenario):
		return fmt.Errorf("--scenario (DEVPILOT_SCENARIO) must be one of: %s", strings.Join(scenario.Names(), ", "))
	case !s.Emulator:
		return errors.New("--scenario (DEVPILOT_SCENARIO) fills a product that runs beside the Bitbucket emulator, and none is started: add --emulator, or leave the scenario out")
	case s.EmulatorScenario != "" && s.EmulatorScenario != DefaultScenario:
		return fmt.Errorf("--scenario (DEVPILOT_SCENARIO) needs the emulator's scenario %q: leave --emulator-scenario out", DefaultScenario)
	case s.IdentityProvidersFile != "":
		return errors.New("--scenario (DEVPILOT_SCENARIO) brings its own people: leave --identity-providers-file out")
	case !s.NATSURL.IsZero() || !s.RedisURL.IsZero():
		return errors.New("--scenario (DEVPILOT_SCENARIO) is for the embedded stores of a data directory of its own: leave --nats-url and --redis-url out")
	case s.Workers != 0 && s.Workers < scenarioWorkers:
		return fmt.Errorf("--scenario (DEVPILOT_SCENARIO) holds a deployment while others run: --workers must be %d at least, or left out", scenarioWorkers)
	}
	_, err := s.scenarioEnd()
	return err
}

// scenarioWorkers are the deployments at a time that a scenario needs.
const scenarioWorkers = 4

// scenarioEnd is when the story ends; zero for now.
func (s *Settings) scenarioEnd() (time.Time, error) {
	if s.ScenarioTime == "" {
		return time.Time{}, nil
	}
	end, err := time.Parse(time.RFC3339, s.ScenarioTime)
	if err != nil {
		return time.Time{}, errors.New("--scenario-time (DEVPILOT_SCENARIO_TIME) must be like 2026-03-16T09:00:00Z")
	}
	return end.UTC(), nil
}

// DefaultScenario is what an emulator starts with where nothing else is said.
const DefaultScenario = "sample"

// useEmulator points the settings at the emulator that listens. Credentials of a real consumer beside it are an
// error: one of the two is a mistake, and real credentials have no business with an emulator.
func (s *Settings) useEmulator(listener net.Listener) (emulator.Consumer, error) {
	if s.BitbucketClientID != "" || !s.BitbucketClientSecret.IsZero() {
		return emulator.Consumer{}, fmt.Errorf("--emulator and the credentials of an OAuth consumer (DEVPILOT_BITBUCKET_CLIENT_ID) exclude each other: leave one out")
	}
	host, _, err := net.SplitHostPort(s.EmulatorListen)
	if err != nil {
		return emulator.Consumer{}, fmt.Errorf("--emulator-listen (DEVPILOT_EMULATOR_LISTEN): %w", err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return emulator.Consumer{}, fmt.Errorf("the emulator's address: %w", err)
	}
	return s.emulatorAt(net.JoinHostPort(host, port)), nil
}

// UseOwnEmulator points the settings at the emulator that a program with them has started.
func (s *Settings) UseOwnEmulator() error {
	if s.BitbucketClientID != "" {
		return nil // useEmulator refuses it
	}
	if _, _, err := net.SplitHostPort(s.EmulatorListen); err != nil {
		return fmt.Errorf("--emulator-listen (DEVPILOT_EMULATOR_LISTEN): %w", err)
	}
	s.emulatorAt(s.EmulatorListen)
	return nil
}

func (s *Settings) emulatorAt(address string) emulator.Consumer {
	site := url.URL{Scheme: "http", Host: address}
	consumer := emulator.DefaultConsumer()
	s.BitbucketClientID = consumer.Key
	s.BitbucketClientSecret = seal.NewSecret(consumer.Secret)
	s.BitbucketSiteURL = site.String()
	s.BitbucketAPIURL = site.String() + "/2.0"
	return consumer
}
