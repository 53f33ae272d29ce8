package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	"devpilot.io/bitbucket/services/gateway/internal/session"
)

const (
	// askLease is how long others leave it to who asks: refresh tokens work once.
	askLease = 3 * providerTimeout
	// tolerance is how long a session goes on after its check was due, while the provider does not answer.
	tolerance = time.Hour
	askPoll   = 100 * time.Millisecond // how often who waits for another replica's question reads the session
)

// Check implements session.Provider: it asks the provider about the person again when that is due. Requests
// of a session that come meanwhile wait for the same question.
func (s *Service) Check(ctx context.Context, subject, provider string, e *gatewaystorev1.ListedSession) error {
	p := s.providers[provider]
	if p == nil {
		return session.ErrDead
	}
	if !s.due(p, e) {
		return nil
	}
	done := s.asking.DoChan(e.GetId(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLease)
		defer cancel()
		return nil, s.check(ctx, p, subject, e.GetId())
	})
	select {
	case <-ctx.Done():
		return fmt.Errorf("signin: wait for the provider: %w", ctx.Err())
	case r := <-done:
		return r.Err //nolint:wrapcheck // our own
	}
}

func (s *Service) due(p *Provider, e *gatewaystorev1.ListedSession) bool {
	return len(e.GetSealedRefreshToken()) > 0 && s.cfg.Now().Sub(e.GetCheckTime().AsTime()) >= p.settings.RefreshEvery
}

// late says that the provider's word is too old to go by.
func (s *Service) late(p *Provider, e *gatewaystorev1.ListedSession) bool {
	return s.cfg.Now().Sub(e.GetCheckTime().AsTime()) >= p.settings.RefreshEvery+tolerance
}

func (s *Service) check(ctx context.Context, p *Provider, subject, id string) error {
	for {
		ours := false
		e, err := s.cfg.Tenants.ChangeSession(ctx, subject, id, func(e *gatewaystorev1.ListedSession) error {
			ours = s.due(p, e) && s.cfg.Now().Sub(e.GetAskTime().AsTime()) >= askLease
			if !ours {
				return kv.ErrSkip
			}
			e.AskTime = timestamppb.New(s.cfg.Now())
			return nil
		})
		switch {
		case err != nil:
			return err
		case e == nil:
			return session.ErrDead
		case ours:
			return s.ask(ctx, p, subject, e)
		case !s.due(p, e), !s.late(p, e):
			return nil // answered meanwhile, or somebody else asks or has just asked in vain
		}
		select {
		case <-ctx.Done():
			return p.unavailable(ctx.Err())
		case <-time.After(askPoll):
		}
	}
}

func (s *Service) ask(ctx context.Context, p *Provider, subject string, e *gatewaystorev1.ListedSession) error {
	token, err := s.sessions.Kept(subject, e.GetId(), e.GetSealedRefreshToken())
	if err != nil {
		return err
	}
	a, err := p.renew(ctx, token)
	var no refused
	switch {
	case errors.As(err, &no):
		return s.follow(ctx, p, subject, e, no)
	case err != nil && s.late(p, e):
		return err
	case err != nil:
		s.cfg.Logger.WarnContext(ctx, "a session could not be checked at its provider; it goes on for now", slog.String("provider", p.settings.ID), logs.Err(err))
		return nil
	}
	who := p.person(a.claims)
	if who.Subject() != subject {
		return s.end(ctx, p, subject, e.GetId(), errors.New("the answer is about somebody else"))
	}
	// What the provider gave first: the old token may not work any more.
	if err := s.renewed(ctx, subject, e.GetId(), a, false); err != nil {
		return err
	}
	n, err := s.cfg.Tenants.Arrive(ctx, who, "")
	if err != nil {
		return err
	}
	if n == 0 {
		return s.end(ctx, p, subject, e.GetId(), errors.New("no rule lets the person in any more"))
	}
	return s.renewed(ctx, subject, e.GetId(), a, true)
}

// follow has a session whose refresh token the provider does not take go by what the provider says for the
// person's last sign-in: some providers have one refresh token for a person, and a sign-in ends those before. A
// provider that has sessions of its own can end one of them, so that there a no is a no.
func (s *Service) follow(ctx context.Context, p *Provider, subject string, e *gatewaystorev1.ListedSession, no refused) error {
	a, err := s.cfg.Tenants.Account(ctx, subject)
	if err != nil {
		return err
	}
	last := e
	for _, other := range a.GetSessions() {
		if other.GetProvider() == e.GetProvider() && other.GetProviderSession() == "" && other.GetCreateTime().AsTime().After(last.GetCreateTime().AsTime()) {
			last = other
		}
	}
	if e.GetProviderSession() != "" || last == e {
		return s.end(ctx, p, subject, e.GetId(), no.error)
	}
	if err := s.Check(ctx, subject, e.GetProvider(), last); errors.Is(err, session.ErrDead) {
		return s.end(ctx, p, subject, e.GetId(), no.error)
	} else if err != nil {
		return err
	}
	last, err = s.cfg.Tenants.ChangeSession(ctx, subject, last.GetId(), func(*gatewaystorev1.ListedSession) error { return kv.ErrSkip })
	if err != nil {
		return err
	}
	if last == nil {
		return s.end(ctx, p, subject, e.GetId(), no.error)
	}
	return s.change(ctx, subject, e.GetId(), func(e *gatewaystorev1.ListedSession) {
		e.CheckTime, e.AskTime = last.GetCheckTime(), nil
	})
}

// renewed keeps what the provider gave; told, that its word about the person was followed.
func (s *Service) renewed(ctx context.Context, subject, id string, a answer, told bool) error {
	refresh, err := s.sessions.Keep(subject, id, a.refresh)
	if err != nil {
		return err
	}
	hint, err := s.sessions.Keep(subject, id, a.idToken)
	if err != nil {
		return err
	}
	return s.change(ctx, subject, id, func(e *gatewaystorev1.ListedSession) {
		if e.SealedRefreshToken = refresh; hint != nil {
			e.SealedIdToken = hint
		}
		if told {
			e.CheckTime, e.AskTime = timestamppb.New(s.cfg.Now()), nil
		}
	})
}

// change changes a session that is there; ErrDead when it is not.
func (s *Service) change(ctx context.Context, subject, id string, change func(e *gatewaystorev1.ListedSession)) error {
	e, err := s.cfg.Tenants.ChangeSession(ctx, subject, id, func(e *gatewaystorev1.ListedSession) error {
		change(e)
		return nil
	})
	if err == nil && e == nil {
		return session.ErrDead
	}
	return err
}

func (s *Service) end(ctx context.Context, p *Provider, subject, id string, why error) error {
	s.cfg.Logger.InfoContext(ctx, "a session ended at its provider's word", slog.String("provider", p.settings.ID), logs.Err(why))
	if _, err := s.sessions.End(ctx, subject, id); err != nil {
		return err
	}
	return session.ErrDead
}
