package scenario

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

const (
	day = 24 * time.Hour // a step of the story
	// waitingRepository is the one whose git does not answer.
	waitingRepository = "acme/reports"
	// held is for how long the deployment that is under way stays so: the longest that a hook may take.
	held = time.Hour
)

// made are the repositories that the story needs beside those of the emulator's sample.
var made = []string{"blog", "landing", "mobile", "reports", "search", "shop", "video"}

// team is the story of a team: each app ends in a state of its own.
func team() []chapter {
	return []chapter{
		{14 * day, "people sign in, and the workspace is connected", arrive},
		{13 * day, "web: live and in sync, with deliveries of every outcome", tellWeb},
		{12 * day, "staging: behind, because auto-deploy is off", tellStaging},
		{11 * day, "handbook: live, without a webhook", tellHandbook},
		{10 * day, "search: redeployed", tellSearch},
		{9 * day, "shop: a deployment cancelled, another superseded", tellShop},
		{8 * day, "blog: rolled back", tellBlog},
		{7 * day, "mobile: a chosen commit is live", tellMobile},
		{6 * day, "landing: never deployed", tellLanding},
		{5 * day, "API keys, an invitation, targets of notifications", tellSettings},
		{time.Hour, "api: failing, by a hook", tellAPI},
		{10 * time.Minute, "reports: waiting, because Bitbucket does not answer", tellReports},
		{time.Minute, "video: being deployed", tellVideo},
		{time.Second, "commits are counted", tellCounts},
	}
}

func arrive(ctx context.Context, s *story) (err error) {
	for _, name := range made {
		in := emulator.RepositoryInput{Name: name, Seed: "site", Permissions: map[string]string{account: "admin"}}
		if _, err := s.Bucket.PutRepository(ctx, "acme/"+name, in); err != nil {
			return fmt.Errorf("make acme/%s: %w", name, err)
		}
	}
	for _, who := range []struct {
		id     string
		caller **caller
	}{{"olga", &s.olga}, {"adam", &s.adam}, {"mia", &s.mia}} {
		if *who.caller, err = enter(ctx, s.Public, who.id); err != nil {
			return err
		}
	}
	if _, err := s.olga.do(ctx, http.MethodPatch, path(""), object{"displayName": "Acme"}); err != nil {
		return err
	}
	if _, err := s.olga.do(ctx, http.MethodPatch, "/v1/workspaces/"+bareWorkspace, object{"displayName": "Not connected yet"}); err != nil {
		return err
	}
	return s.connect(ctx, s.olga)
}

// tellWeb has three releases: one by hand, two by pushes. Three more pushes are for no app.
func tellWeb(ctx context.Context, s *story) error {
	if err := s.app(ctx, "web", "acme/web", "main", true, object{"badge": true, "rules": object{"pathsIgnore": []any{"docs/**"}}}); err != nil {
		return err
	}
	if err := s.state(ctx, "web", 1, "COMPLETED"); err != nil {
		return err
	}
	for i, title := range []string{"Greet whoever comes", "Say when we are open"} {
		if _, err := s.push(ctx, "acme/web", "main", title, page(title)); err != nil {
			return err
		}
		if err := s.state(ctx, "web", 2+i, "COMPLETED"); err != nil {
			return err
		}
	}
	if _, err := s.push(ctx, "acme/web", "feature/login", "Remember who signed in", map[string]string{"login.html": "<h1>Welcome back</h1>\n"}); err != nil {
		return err
	}
	_, err := s.Bucket.Push(ctx, "acme/web", account, emulator.RefChange{Tag: "v1.1", From: "main"})
	if err == nil {
		_, err = s.Bucket.Push(ctx, "acme/web", account, emulator.RefChange{Branch: "release/1.0", Delete: true})
	}
	if err != nil {
		return fmt.Errorf("push to acme/web: %w", err)
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	// The first push is considered again: what came after it is live, and stays so.
	app, err := s.adam.do(ctx, http.MethodGet, path("/apps/web"), nil)
	if err != nil {
		return err
	}
	if _, err := s.adam.do(ctx, http.MethodPost, path("/webhooks/%s/deliveries/1:replay", at(app, "webhook", "id")), object{}); err != nil {
		return err
	}
	return s.state(ctx, "web", 4, "SUPERSEDED")
}

func page(title string) map[string]string {
	return map[string]string{"index.html": "<!doctype html>\n<title>" + title + "</title>\n<h1>" + title + "</h1>\n"}
}

// tellStaging shares the repository of web, whose webhook tells of the push.
func tellStaging(ctx context.Context, s *story) error {
	if err := s.app(ctx, "staging", "acme/web", "develop", true, nil); err != nil {
		return err
	}
	if err := s.state(ctx, "staging", 1, "COMPLETED"); err != nil {
		return err
	}
	if err := s.change(ctx, "staging", object{"autoDeploy": false}); err != nil {
		return err
	}
	if _, err := s.push(ctx, "acme/web", "develop", "Try another title", page("Soon")); err != nil {
		return err
	}
	return s.sync(ctx, "staging", "BEHIND")
}

// sync waits until an app stands so to its branch.
func (s *story) sync(ctx context.Context, app, want string) error {
	return await(ctx, app+" to be "+want, func() error {
		a, err := s.adam.do(ctx, http.MethodGet, path("/apps/%s", app), nil)
		if err != nil {
			return final{err}
		}
		if state := at(a, "sync", "state"); state != want {
			return fmt.Errorf("it is %v", state)
		}
		return nil
	})
}

// tellHandbook is of a repository whose webhooks the connected account may not touch.
func tellHandbook(ctx context.Context, s *story) error {
	if err := s.app(ctx, "handbook", "acme/docs", "main", true, nil); err != nil {
		return err
	}
	return s.state(ctx, "handbook", 1, "COMPLETED")
}

func tellSearch(ctx context.Context, s *story) error {
	if err := s.app(ctx, "search", "acme/search", "main", true, nil); err != nil {
		return err
	}
	if err := s.state(ctx, "search", 1, "COMPLETED"); err != nil {
		return err
	}
	if _, err := s.mia.do(ctx, http.MethodPost, path("/apps/search/deployments/1:redeploy"), object{}); err != nil {
		return err
	}
	return s.state(ctx, "search", 2, "COMPLETED")
}

// tellShop holds a deployment until two pushes came, and cancels it.
func tellShop(ctx context.Context, s *story) error {
	if err := s.app(ctx, "shop", "acme/shop", "main", false, object{"hooks": []any{hold("Wait for the stock", held)}}); err != nil {
		return err
	}
	first, err := s.deploy(ctx, s.mia, "shop", nil)
	if err == nil {
		err = s.running(ctx, "shop", first)
	}
	if err != nil {
		return err
	}
	for i, title := range []string{"Sell apples", "Sell pears too"} {
		if _, err := s.push(ctx, "acme/shop", "main", title, page(title)); err != nil {
			return err
		}
		if err := s.state(ctx, "shop", first+1+i, "PENDING"); err != nil {
			return err
		}
	}
	if err := s.state(ctx, "shop", first+1, "SUPERSEDED"); err != nil {
		return err
	}
	if err := s.change(ctx, "shop", object{"hooks": []any{}}); err != nil {
		return err
	}
	if _, err := s.mia.do(ctx, http.MethodPost, path("/apps/shop/deployments/%d:cancel", first), object{}); err != nil {
		return err
	}
	if err := s.state(ctx, "shop", first, "CANCELLED"); err != nil {
		return err
	}
	return s.state(ctx, "shop", first+2, "COMPLETED")
}

// hold is a hook that does nothing for a while.
func hold(name string, d time.Duration) object {
	return object{
		"name": name, "stage": "PRE_SOURCE_CONTROL", "timeoutSeconds": int(d.Seconds()),
		"command": fmt.Sprintf("echo 'The scenario holds this deployment.'\nsleep %d", int(d.Seconds())),
	}
}

// running waits until the hook of a deployment runs.
func (s *story) running(ctx context.Context, app string, number int) error {
	return await(ctx, fmt.Sprintf("a hook of deployment %d of %s to run", number, app), func() error {
		d, err := s.mia.do(ctx, http.MethodGet, path("/apps/%s/deployments/%d", app, number), nil)
		if err != nil {
			return final{err}
		}
		for _, stage := range objects(d["stages"]) {
			for _, hook := range objects(stage["hooks"]) {
				if hook["state"] == "RUNNING" {
					return nil
				}
				if hook["state"] == "FAILED" {
					return final{fmt.Errorf("it failed: %v", hook["message"])}
				}
			}
		}
		if d["state"] == "FAILED" {
			return final{fmt.Errorf("it failed: %v", at(d, "error", "message"))}
		}
		return fmt.Errorf("it is %v", d["state"])
	})
}

func tellBlog(ctx context.Context, s *story) error {
	if err := s.app(ctx, "blog", "acme/blog", "main", true, nil); err != nil {
		return err
	}
	if err := s.state(ctx, "blog", 1, "COMPLETED"); err != nil {
		return err
	}
	if _, err := s.push(ctx, "acme/blog", "main", "Change the colours", page("Blog, in green")); err != nil {
		return err
	}
	if err := s.state(ctx, "blog", 2, "COMPLETED"); err != nil {
		return err
	}
	if _, err := s.adam.do(ctx, http.MethodPost, path("/apps/blog:rollback"), object{"deployment": 1, "pauseAutoDeploy": true}); err != nil {
		return err
	}
	if err := s.state(ctx, "blog", 3, "COMPLETED"); err != nil {
		return err
	}
	return s.sync(ctx, "blog", "ROLLED_BACK")
}

// tellMobile deploys the commit before the newest.
func tellMobile(ctx context.Context, s *story) error {
	older, err := s.push(ctx, "acme/mobile", "main", "Fit small screens", page("Small"))
	if err == nil {
		_, err = s.push(ctx, "acme/mobile", "main", "Fit large screens too", page("Small and large"))
	}
	if err != nil {
		return err
	}
	if err := s.app(ctx, "mobile", "acme/mobile", "main", true, nil); err != nil {
		return err
	}
	if err := s.state(ctx, "mobile", 1, "COMPLETED"); err != nil {
		return err
	}
	if _, err := s.deploy(ctx, s.mia, "mobile", object{"commit": older}); err != nil {
		return err
	}
	if err := s.state(ctx, "mobile", 2, "COMPLETED"); err != nil {
		return err
	}
	return s.sync(ctx, "mobile", "CHOSEN")
}

func tellLanding(ctx context.Context, s *story) error {
	return s.app(ctx, "landing", "acme/landing", "main", false, nil)
}

func tellSettings(ctx context.Context, s *story) error {
	for _, call := range []struct {
		who  *caller
		path string
		body object
	}{
		{s.olga, "/apiKeys", object{"label": "CI of web", "scope": "DEPLOY", "apps": []any{"web"}}},
		{s.adam, "/apiKeys", object{"label": "Dashboard", "scope": "READ"}},
		{s.olga, "/apiKeys", object{"label": "Terraform", "scope": "ADMIN"}},
		{s.adam, "/invitations", object{"email": "ines@acme.example.test", "role": "MEMBER"}},
		// Names below "test" exist nowhere (RFC 6761): nothing leaves this machine.
		{s.adam, "/notificationTargets", object{"target": object{"kind": "SLACK", "label": "Team chat", "url": "https://chat.example.test/hook", "events": []any{"DEPLOYMENT_FAILED", "DEPLOYMENT_RECOVERED"}, "active": false}}},
		{s.adam, "/notificationTargets", object{"target": object{"kind": "WEBHOOK", "label": "Pager", "url": "https://pager.example.test/hook", "events": []any{"CONNECTION", "DISK_LOW"}}}},
	} {
		if _, err := call.who.do(ctx, http.MethodPost, path("%s", call.path), call.body); err != nil {
			return err
		}
	}
	return nil
}

// tellAPI breaks a test that a hook runs.
func tellAPI(ctx context.Context, s *story) error {
	const name = "acme/api"
	if _, err := s.push(ctx, name, "main", "Test before a release", map[string]string{"test.sh": "echo 'ok 1 - answers'\necho 'ok 2 - counts'\n"}); err != nil {
		return err
	}
	hook := object{"name": "Run the tests", "stage": "POST_SOURCE_CONTROL", "command": "sh test.sh"}
	if err := s.app(ctx, "api", name, "main", true, object{"hooks": []any{hook}}); err != nil {
		return err
	}
	if err := s.state(ctx, "api", 1, "COMPLETED"); err != nil {
		return err
	}
	broken := "echo 'ok 1 - answers'\necho 'not ok 2 - counts: 41 is not 42' >&2\nexit 1\n"
	if _, err := s.push(ctx, name, "main", "Count faster", map[string]string{"test.sh": broken}); err != nil {
		return err
	}
	if err := s.state(ctx, "api", 2, "FAILED"); err != nil {
		return err
	}
	return s.sync(ctx, "api", "BEHIND")
}

func tellReports(ctx context.Context, s *story) error {
	if err := s.app(ctx, "reports", waitingRepository, "main", true, nil); err != nil {
		return err
	}
	if err := s.state(ctx, "reports", 1, "COMPLETED"); err != nil {
		return err
	}
	if err := Hold(ctx, s.Bucket); err != nil {
		return err
	}
	n, err := s.deploy(ctx, s.mia, "reports", nil)
	if err != nil {
		return err
	}
	return await(ctx, "the deployment of reports to wait", func() error {
		d, err := s.mia.do(ctx, http.MethodGet, path("/apps/reports/deployments/%d", n), nil)
		if err != nil {
			return final{err}
		}
		if at(d, "waitingFor", "reason") == nil {
			return fmt.Errorf("it is %v", d["state"])
		}
		return nil
	})
}

func tellVideo(ctx context.Context, s *story) error {
	if err := s.app(ctx, "video", "acme/video", "main", true, nil); err != nil {
		return err
	}
	if err := s.state(ctx, "video", 1, "COMPLETED"); err != nil {
		return err
	}
	if err := s.change(ctx, "video", object{"hooks": []any{hold("Render the clips", held)}}); err != nil {
		return err
	}
	n, err := s.deploy(ctx, s.mia, "video", nil)
	if err != nil {
		return err
	}
	return s.running(ctx, "video", n)
}

// tellCounts waits until the commits are counted by which apps are behind: Devpilot does that when it has time.
func tellCounts(ctx context.Context, s *story) error {
	for _, app := range []string{"api", "blog", "mobile", "staging"} {
		err := await(ctx, "the commits to be counted by which "+app+" is behind", func() error {
			a, err := s.adam.do(ctx, http.MethodGet, path("/apps/%s", app), nil)
			if err != nil {
				return final{err}
			}
			if at(a, "sync", "commits") == nil {
				return fmt.Errorf("they are not yet")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
