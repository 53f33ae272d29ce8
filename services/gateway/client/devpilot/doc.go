// Package devpilot speaks with Devpilot's API from Go. It needs nothing but the standard library.
//
// The types and one method per call (api.gen.go), and the reasons of refusals (reasons.gen.go), are made of
// /openapi.json by `make generate`. By hand are: refusals as *Error, with the problem and its reason;
// repeats, where the table of reasons says that one can help and a requestId or the method makes it harmless;
// pages of lists; and streams of logs and events that go on where they were after an interruption.
//
//	c, err := devpilot.New("https://devpilot.example.com", devpilot.WithKey(key))
//	d, err := c.CreateDeployment(ctx, "default", "web", devpilot.CreateDeploymentJSONRequestBody{})
//	for record, err := range c.FollowLog(ctx, devpilot.LogOf{Workspace: "default", App: "web", Number: d.Number}) { … }
package devpilot
