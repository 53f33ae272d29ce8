package scenario

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

const (
	// workspace is where the story happens; bareWorkspace is one that nobody connected.
	workspace     = "default"
	bareWorkspace = "empty"
	// account is whose Bitbucket account is connected, and who pushes.
	account = "jane-dev"
)

// epoch is when the story ends for the dates of its commits, which are the same at each play, and so are their hashes.
var epoch = time.Date(2026, 3, 16, 9, 0, 0, 0, time.UTC)

// Stage is what the story is played on.
type Stage struct {
	Record *Record
	Public string // the product's address
	Bucket *emulator.Control
	Out    io.Writer // where it is told how far it is
}

// chapter is a part of the story that happened so long before its end.
type chapter struct {
	before time.Duration
	title  string
	tell   func(context.Context, *story) error
}

// story is a play under way.
type story struct {
	Stage
	olga, adam, mia *caller
	before          time.Duration // of the chapter
	commits         int           // of the chapter
}

// Hold puts up the faults that hold an app in its state. They are gone after each start of the emulator.
func Hold(ctx context.Context, bucket *emulator.Control) error {
	_, err := bucket.Inject(ctx, emulator.Fault{Route: "git", Repository: waitingRepository, Status: http.StatusServiceUnavailable, Body: "The scenario holds this repository back."})
	if err != nil {
		return fmt.Errorf("hold an app back: %w", err)
	}
	return nil
}

// Play tells the story, once.
func Play(ctx context.Context, stage Stage) error {
	s := &story{Stage: stage}
	chapters := team()
	for i, c := range chapters {
		fmt.Fprintf(s.Out, "  %2d/%d  %s\n", i+1, len(chapters), c.title)
		s.before, s.commits = c.before, 0
		s.Record.beat(c.before)
		if err := c.tell(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", c.title, err)
		}
		if err := s.settle(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.title, err)
		}
	}
	s.Record.beat(0)
	return s.Record.finish()
}

func path(format string, args ...any) string {
	return "/v1/workspaces/" + workspace + fmt.Sprintf(format, args...)
}

// connect connects the workspace through Bitbucket's page of consent.
func (s *story) connect(ctx context.Context, who *caller) error {
	begun, err := who.do(ctx, http.MethodPost, path("/integrations/bitbucket:connect"), object{"returnPath": "/v1/info"})
	if err != nil {
		return err
	}
	to, _ := begun["authorizeUrl"].(string)
	consent, err := who.visit(ctx, to, nil)
	if err != nil {
		return err
	}
	back, err := who.visit(ctx, consent.String(), url.Values{"account": {account}, "action": {"grant"}})
	if err != nil {
		return err
	}
	if back.Query().Get("bitbucket") != "connected" {
		return fmt.Errorf("the connect ended with %s", back.Query().Get("reason"))
	}
	return nil
}

// repository is the id of a repository, once it is listed.
func (s *story) repository(ctx context.Context, fullName string) (id string, err error) {
	err = await(ctx, fullName+" to be listed", func() error {
		list, err := s.adam.do(ctx, http.MethodGet, path("/repositories?pageSize=200"), nil)
		if err != nil {
			return final{err}
		}
		for _, r := range objects(list["repositories"]) {
			if r["fullName"] == fullName {
				id, _ = r["id"].(string)
				return nil
			}
		}
		return fmt.Errorf("it is not among them")
	})
	return id, err
}

// app makes an app. more are fields of it beside repository, branch and autoDeploy.
func (s *story) app(ctx context.Context, id, fullName, branch string, deploy bool, more object) error {
	repository, err := s.repository(ctx, fullName)
	if err != nil {
		return err
	}
	app := object{"repository": repository, "branch": branch, "autoDeploy": true}
	for k, v := range more {
		app[k] = v
	}
	if _, err := s.adam.do(ctx, http.MethodPost, path("/apps"), object{"appId": id, "app": app, "deployNow": deploy}); err != nil {
		return err
	}
	// The webhook is registered beside it; pushes before that would be found by polling only.
	return await(ctx, "the webhook of "+id, func() error {
		app, err := s.adam.do(ctx, http.MethodGet, path("/apps/%s", id), nil)
		if err != nil {
			return final{err}
		}
		switch state := at(app, "webhook", "state"); state {
		case "ACTIVE", "NOT_REGISTERED", "MANUAL":
			return nil
		default:
			return fmt.Errorf("it is %v", state)
		}
	})
}

func (s *story) change(ctx context.Context, app string, patch object) error {
	_, err := s.adam.do(ctx, http.MethodPatch, path("/apps/%s", app), patch)
	return err
}

// deploy begins a deployment and answers its number.
func (s *story) deploy(ctx context.Context, who *caller, app string, body object) (int, error) {
	if body == nil {
		body = object{}
	}
	d, err := who.do(ctx, http.MethodPost, path("/apps/%s/deployments", app), body)
	return number(d), err
}

func number(d object) int {
	n, _ := d["number"].(float64)
	return int(n)
}

// state waits until a deployment is in a state.
func (s *story) state(ctx context.Context, app string, number int, want string) error {
	return await(ctx, fmt.Sprintf("deployment %d of %s to be %s", number, app, want), func() error {
		d, err := s.mia.try(ctx, http.MethodGet, path("/apps/%s/deployments/%d", app, number), nil)
		if err != nil {
			return err // it may not be there yet
		}
		switch state := d["state"]; state {
		case want:
			return nil
		case "FAILED", "CANCELLED", "SUPERSEDED", "COMPLETED":
			return final{fmt.Errorf("deployment %d of %s is %v, not %s: %v", number, app, state, want, at(d, "error", "message"))}
		default:
			return fmt.Errorf("it is %v", state)
		}
	})
}

// push commits to a branch with a fixed date, and has Bitbucket deliver it.
func (s *story) push(ctx context.Context, fullName, branch, message string, files map[string]string) (string, error) {
	s.commits++
	spec := emulator.CommitSpec{Message: message, Files: files, Time: epoch.Add(-s.before + time.Duration(s.commits)*time.Second)}
	results, err := s.Bucket.Push(ctx, fullName, account, emulator.RefChange{Branch: branch, Commits: []emulator.CommitSpec{spec}})
	if err != nil || len(results) != 1 {
		return "", fmt.Errorf("push to %s: %w", fullName, err)
	}
	return results[0].New, nil
}

// settle waits until nothing is under way that this chapter began: what is stored later would have the time of the next.
func (s *story) settle(ctx context.Context) error {
	if s.olga == nil {
		return nil
	}
	if err := s.Bucket.WaitIdle(ctx); err != nil {
		return err
	}
	hooks, err := s.adam.do(ctx, http.MethodGet, path("/webhooks"), nil)
	if err != nil {
		return err
	}
	for _, h := range objects(hooks["webhooks"]) {
		if err := s.decided(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// decided waits until it is known what came of each delivery of a webhook.
func (s *story) decided(ctx context.Context, hook object) error {
	uuid, _ := hook["bitbucketUuid"].(string)
	if uuid == "" {
		return nil // Bitbucket has none
	}
	sent, err := s.Bucket.Deliveries(ctx, uuid, 0)
	if err != nil {
		return fmt.Errorf("list deliveries: %w", err)
	}
	requests := map[string]bool{}
	for _, a := range sent {
		requests[a.RequestUUID] = true
	}
	return await(ctx, "deliveries to be decided about", func() error {
		list, err := s.adam.do(ctx, http.MethodGet, path("/webhooks/%s/deliveries?pageSize=200", hook["id"]), nil)
		if err != nil {
			return final{err}
		}
		if known := len(objects(list["deliveries"])); known < len(requests) {
			return fmt.Errorf("%d of %d are listed", known, len(requests))
		}
		for _, d := range objects(list["deliveries"]) {
			if len(objects(d["outcomes"])) == 0 {
				return fmt.Errorf("delivery %v is not", d["number"])
			}
			for _, o := range objects(d["outcomes"]) {
				if o["kind"] == "DECIDING" {
					return fmt.Errorf("delivery %v is not", d["number"])
				}
			}
		}
		return nil
	})
}

// objects are the elements of a JSON list of objects.
func objects(list any) (out []object) {
	all, _ := list.([]any)
	for _, v := range all {
		if o, ok := v.(object); ok {
			out = append(out, o)
		}
	}
	return out
}
