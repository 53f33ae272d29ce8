package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/ingress"
)

// proofTimeout bounds each of the two requests: Bitbucket gives up on a delivery after so long.
const proofTimeout = 10 * time.Second

// ProveDelivery sends a signed request to ourselves through the public URL, and asks Bitbucket's site for the
// time.
func (s *Server) ProveDelivery(ctx context.Context, req *webhookv1.ProveDeliveryRequest) (*webhookv1.ProveDeliveryResponse, error) {
	rec, secret, address, err := s.cfg.Registry.ToProve(ctx, req.GetWorkspace())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	resp := &webhookv1.ProveDeliveryResponse{Webhook: rec.GetId()}
	// Bitbucket follows no redirect, so neither do we.
	client := &http.Client{Transport: bitbucket.NewTransport(), Timeout: proofTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	wg.Go(func() { s.clock(ctx, client, resp) })
	switch err := s.cfg.Registry.View().Address.Unreachable(); {
	case rec == nil:
		resp.Skipped = "No app of this workspace deploys on pushes yet, so there is no webhook to send to."
	case err != nil:
		resp.Skipped = apierr.From(err).Message()
	default:
		send(ctx, client, address, secret, resp)
	}
	wg.Wait()
	return resp, nil
}

// send makes the request. Nothing that is said of its trouble holds the secret or the webhook's address, whose
// path nobody is to guess.
func send(ctx context.Context, client *http.Client, address string, secret seal.Secret, resp *webhookv1.ProveDeliveryResponse) {
	resp.PublicUrl = address
	if u, err := url.Parse(address); err == nil {
		resp.PublicUrl = u.Scheme + "://" + u.Host
	}
	body := fmt.Sprintf(`{"proof":%q}`, rand.Text())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		resp.Trouble = "The public URL cannot be asked."
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(hook.HeaderEvent, hook.EventProof)
	req.Header.Set(hook.HeaderSignature, hook.Sign([]byte(body), secret))
	answer, err := client.Do(req)
	if err != nil {
		resp.Trouble = resp.PublicUrl + " does not answer: " + cause(err)
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	_ = answer.Body.Close()
	resp.Status = int32(answer.StatusCode)
	_, err = hook.Verify(ingress.ProofAnswer([]byte(body)), answer.Header.Get(ingress.HeaderProof), secret)
	resp.Verified = err == nil
	switch {
	case resp.Verified:
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		resp.Trouble = fmt.Sprintf("%s answers %d and sends elsewhere; Bitbucket follows no redirect.", resp.GetPublicUrl(), answer.StatusCode)
	case answer.StatusCode == http.StatusUnauthorized:
		resp.Trouble = resp.GetPublicUrl() + " answers 401: the request was changed on its way, so that its signature does not match any more."
	case answer.StatusCode == http.StatusOK:
		resp.Trouble = resp.GetPublicUrl() + " answers 200, but it is not this Devpilot that answers there."
	default:
		resp.Trouble = fmt.Sprintf("%s answers %d instead of 200.", resp.GetPublicUrl(), answer.StatusCode)
	}
}

// cause is an error without the address that it happened at.
func cause(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// clock asks for Bitbucket's time, without credentials and outside the budget of the REST API.
func (s *Server) clock(ctx context.Context, client *http.Client, resp *webhookv1.ProveDeliveryResponse) {
	site := s.cfg.Registry.View().Site.SiteURL
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, site, http.NoBody)
	if err != nil {
		resp.ClockTrouble = "The address of Bitbucket cannot be asked."
		return
	}
	answer, err := client.Do(req)
	if err != nil {
		resp.ClockTrouble = site + " does not answer: " + cause(err)
		return
	}
	_ = answer.Body.Close()
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		resp.ClockTrouble = site + " answers without a time."
		return
	}
	resp.BitbucketTime, resp.OwnTime = timestamppb.New(at), timestamppb.New(s.cfg.Now())
}
