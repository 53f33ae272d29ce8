package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const logPath = "/v1/workspaces/default/apps/web/deployments/12/log"

func endedLog(_ proto.Message, s grpc.ServerStream) error {
	return s.SendMsg(&deployerv1.ReadLogResponse{End: &deployerv1.LogEnd{State: deployerv1.Deployment_COMPLETED}})
}

// running has nothing new of a deployment that has not ended, after a heartbeat.
func running(_ proto.Message, s grpc.ServerStream) error {
	if err := s.SendMsg(&deployerv1.ReadLogResponse{}); err != nil {
		return err
	}
	return s.SendMsg(&deployerv1.ReadLogResponse{End: &deployerv1.LogEnd{State: deployerv1.Deployment_PROCESSING}})
}

func line(n int32, text string) *deployerv1.LogRecord {
	return &deployerv1.LogRecord{
		Line: n, Time: timestamppb.New(time.Date(2026, 11, 22, 14, 15, 16, 0, time.UTC)),
		Stage: deployerv1.Deployment_SOURCE_CONTROL, Stream: deployerv1.LogRecord_STDOUT, Text: text,
	}
}

// threeLines sends three lines after the one that was asked for, in two parts, and the end.
func threeLines(req proto.Message, s grpc.ServerStream) error {
	var list []*deployerv1.LogRecord
	for n, text := range []string{"fetching", "\x1b[31mred\x1b[0m\ttab", "\x1b]8;;https://a.example/\x1b\\done\x1b]8;;\x07\x1b(B\x1b[m"} {
		if int32(n+1) > req.(*deployerv1.ReadLogRequest).GetAfter() {
			list = append(list, line(int32(n+1), text))
		}
	}
	if len(list) == 0 {
		return endedLog(req, s)
	}
	if err := s.SendMsg(&deployerv1.ReadLogResponse{Records: list[:1]}); err != nil {
		return err
	}
	if err := s.SendMsg(&deployerv1.ReadLogResponse{}); err != nil { // its heartbeat
		return err
	}
	return s.SendMsg(&deployerv1.ReadLogResponse{Records: list[1:], End: &deployerv1.LogEnd{State: deployerv1.Deployment_FAILED}})
}

func TestLog_NDJSON(t *testing.T) {
	g := start(t)
	g.deployer.onStream("ReadLog", threeLines)
	a := g.signedIn().get(logPath + "?after=0&tail=5&follow=true").want(http.StatusOK)
	if ct := a.header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("content type %q", ct)
	}
	lines := strings.Split(strings.TrimSuffix(string(a.body), "\n"), "\n")
	if len(lines) != 4 || lines[0] != `{"line":1,"time":"2026-11-22T14:15:16Z","stage":"SOURCE_CONTROL","stream":"STDOUT","text":"fetching"}` || lines[3] != `{"end":{"state":"FAILED"}}` {
		t.Errorf("%s", a.body)
	}
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Errorf("not JSON: %s", l)
		}
	}
	req := g.deployer.asked("ReadLog")[0].req.(*deployerv1.ReadLogRequest)
	if req.GetApp() != "web" || req.GetNumber() != 12 || req.GetTail() != 5 || !req.GetFollow() {
		t.Errorf("asked %v", req)
	}
}

func TestLog_plainText(t *testing.T) {
	g := start(t)
	g.deployer.onStream("ReadLog", threeLines)
	c := g.signedIn()
	want := "2026-11-22T14:15:16.000Z SOURCE_CONTROL      fetching\n" +
		"2026-11-22T14:15:16.000Z SOURCE_CONTROL      red\ttab\n" +
		"2026-11-22T14:15:16.000Z SOURCE_CONTROL      done\n-- end: FAILED\n"
	for _, a := range []*answer{c.get(logPath, with("Accept", "text/plain")), c.get(logPath+"?format=text", with("Accept", "text/event-stream"))} {
		if a.want(http.StatusOK); string(a.body) != want || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%q as %s", a.body, a.header.Get("Content-Type"))
		}
	}
}

func TestLog_serverSentEventsResume(t *testing.T) {
	g := start(t)
	g.deployer.onStream("ReadLog", threeLines)
	c := g.signedIn()
	s := c.stream(logPath+"?follow=true&after=0", with("Accept", "text/event-stream"))
	if e := s.want("record"); e.id != "1" || !strings.Contains(e.data, `"fetching"`) {
		t.Errorf("%+v", e)
	}
	s.close()
	back := c.stream(logPath+"?follow=true&after=0&tail=1", with("Accept", "text/event-stream"), with("Last-Event-ID", "1"))
	if e := back.want("record"); e.id != "2" {
		t.Errorf("%+v", e)
	}
	back.want("record")
	if e := back.want("end"); e.data != `{"end":{"state":"FAILED"}}` {
		t.Errorf("%+v", e)
	}
	if req := g.deployer.asked("ReadLog")[1].req.(*deployerv1.ReadLogRequest); req.GetAfter() != 1 || req.GetTail() != 0 {
		t.Errorf("resumed with %v", req)
	}
}

func TestLog_followsWithHeartbeats(t *testing.T) {
	g := start(t)
	more := make(chan struct{})
	g.deployer.onStream("ReadLog", func(_ proto.Message, s grpc.ServerStream) error {
		<-more
		return threeLines(&deployerv1.ReadLogRequest{}, s)
	})
	s := g.signedIn().stream(logPath + "?follow")
	if s.resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", s.resp.StatusCode)
	}
	c := g.signedIn()
	text := c.stream(logPath+"?follow=true&format=sse", with("Accept", "*/*"))
	select {
	case e := <-text.events:
		if e.comment != "heartbeat" {
			t.Errorf("%+v", e)
		}
	case <-time.After(time.Minute):
		t.Fatal("no heartbeat")
	}
	close(more)
	text.want("record")
}

func TestLog_failures(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	g.deployer.onStream("ReadLog", func(proto.Message, grpc.ServerStream) error {
		return apierr.New(apierr.ReasonDeploymentNotFound, "There is no deployment 12.")
	})
	c.get(logPath).problem(http.StatusNotFound, "DEPLOYMENT_NOT_FOUND")
	for _, bad := range []string{"?after=x", "?tail=-1", "?follow=perhaps", "?format=xml", "?lines=3"} {
		c.get(logPath+bad).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	}
	for _, n := range []string{"0", "x", "99999999999"} {
		c.get("/v1/workspaces/default/apps/web/deployments/"+n+"/log").problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	}
	// Trouble in the middle takes the place of the end.
	g.deployer.onStream("ReadLog", func(_ proto.Message, s grpc.ServerStream) error {
		if err := s.SendMsg(&deployerv1.ReadLogResponse{Records: []*deployerv1.LogRecord{line(1, "x")}}); err != nil {
			return err
		}
		return apierr.New(apierr.ReasonStorageUnavailable, "The log cannot be read now.")
	})
	a := c.get(logPath).want(http.StatusOK)
	if !strings.Contains(string(a.body), `{"error":{`) || !strings.Contains(string(a.body), "STORAGE_UNAVAILABLE") || strings.Contains(string(a.body), `"end"`) {
		t.Errorf("%s", a.body)
	}
	if b := c.get(logPath + "?format=text"); !strings.HasSuffix(string(b.body), "-- cut: The log cannot be read now.\n") {
		t.Errorf("%s", b.body)
	}
	// A service that just stops sending has not ended the log.
	g.deployer.onStream("ReadLog", func(_ proto.Message, s grpc.ServerStream) error {
		return s.SendMsg(&deployerv1.ReadLogResponse{Records: []*deployerv1.LogRecord{line(1, "x")}})
	})
	if b := c.get(logPath); !strings.Contains(string(b.body), "SERVICE_UNAVAILABLE") {
		t.Errorf("%s", b.body)
	}
}

func TestLog_endsWithTheSessionAndItsReader(t *testing.T) {
	g := start(t)
	gone := make(chan struct{}, 2)
	g.deployer.onStream("ReadLog", func(_ proto.Message, s grpc.ServerStream) error {
		err := s.SendMsg(&deployerv1.ReadLogResponse{Records: []*deployerv1.LogRecord{line(1, "x")}})
		<-s.Context().Done()
		gone <- struct{}{}
		return err
	})
	c := g.signedIn()
	s := c.stream(logPath + "?follow=true&format=sse")
	s.want("record")
	c.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK)
	if e := s.want("problem"); !strings.Contains(e.data, "UNAUTHENTICATED") {
		t.Errorf("%+v", e)
	}
	other := g.signedIn().stream(logPath + "?follow=true&format=sse")
	other.want("record")
	other.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		select {
		case <-gone:
		case <-ctx.Done():
			t.Fatal("the service still reads for somebody who is gone")
		}
	}
}
