// Package doctor asks every service how it is, for the operators of the installation, and keeps what they say: the
// report of `devpilot doctor`, of all services together (DESIGN.md#the-doctor).
//
// Run takes the installation's one run by compare-and-set of its record → each service is asked at once, within its time →
// the record has the report after each answer → the whole. A run that was cut off with its process is over once nobody can be
// at work on it any more.
//
// It depends on internal/tenant for the record, and on pkg/checkup.
package doctor

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	doctorv1 "devpilot.io/bitbucket/proto/gen/devpilot/doctor/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

const (
	// answerTime is how long a service may take: its own limit, and the way there and back.
	answerTime = checkup.AnswerTime + 3*time.Second
	// freshFor is how long a report is answered again instead of a new one.
	freshFor = 10 * time.Second
	// cutOff is after how long a run that has not ended was cut off with its process.
	cutOff = answerTime + 15*time.Second
	// program is what the installation runs.
	program = "devpilot"
	// reached is the check of whether a service answers.
	reached = "service"
)

// Store keeps the newest report. Its methods may be called concurrently.
type Store interface {
	ChangeDoctor(ctx context.Context, change func(p *gatewaystorev1.Proof) (*gatewaystorev1.Proof, error)) (*gatewaystorev1.Proof, error)
	Doctor(ctx context.Context) (*gatewaystorev1.Proof, error)
}

// Service is one that is asked.
type Service struct {
	Name   string
	Client doctorv1.DoctorServiceClient
}

// Config is what New needs.
type Config struct {
	Store    Store
	Services []Service // in the order in which they are read
	Own      *checkup.Subject
	Version  string
	Logger   *slog.Logger
	Now      func() time.Time
	// AnswerTime replaces answerTime, for tests.
	AnswerTime time.Duration
}

// Doctor makes one run at a time for an installation. It is safe for concurrent use.
type Doctor struct{ cfg Config }

// New makes a doctor.
func New(cfg Config) *Doctor {
	if cfg.AnswerTime == 0 {
		cfg.AnswerTime = answerTime
	}
	return &Doctor{cfg: cfg}
}

// Last is the newest report, as far as it is.
func (d *Doctor) Last(ctx context.Context) (*gatewayv1.DoctorReport, error) {
	p, err := d.cfg.Store.Doctor(ctx)
	if err != nil {
		return nil, err
	}
	report := reportOf(p)
	if report == nil {
		return &gatewayv1.DoctorReport{Program: program, Version: d.cfg.Version, State: doctorv1.DoctorCheck_SKIPPED}, nil
	}
	if report.GetRunning() && d.over(p.GetRun()) {
		for i, c := range report.GetChecks() {
			if c.GetState() == doctorv1.DoctorCheck_RUNNING {
				report.Checks[i] = line(c.GetService(), c.GetTime(), checkup.Skip("The run was cut off before %s had answered.", c.GetService()))
			}
		}
		conclude(report)
	}
	return report, nil
}

// over tells whether nobody can be at work on a run any more.
func (d *Doctor) over(r *gatewaystorev1.DoctorRun) bool {
	return r.GetEndTime() != nil || d.cfg.Now().Sub(r.GetBeginTime().AsTime()) > cutOff
}

// Run asks the services, unless somebody does or just did: then it is their report. It goes on when the caller does not
// wait for it.
func (d *Doctor) Run(ctx context.Context) (*gatewayv1.DoctorReport, error) {
	began := timestamppb.New(d.cfg.Now())
	r := &run{cfg: d.cfg, id: rand.Text(), began: began, report: &gatewayv1.DoctorReport{Program: program, Version: d.cfg.Version, Time: began, Running: true}}
	for _, s := range d.cfg.Services {
		r.parts = append(r.parts, asking(s.Name, began))
	}
	r.parts = append(r.parts, asking(d.cfg.Own.Service, began))
	r.gather()
	mine := false
	p, err := d.cfg.Store.ChangeDoctor(ctx, func(p *gatewaystorev1.Proof) (*gatewaystorev1.Proof, error) {
		if mine = d.mayBegin(p); !mine {
			return nil, kv.ErrSkip
		}
		return r.record(nil)
	})
	if err != nil {
		return nil, err
	}
	if !mine {
		return reportOf(p), nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.AnswerTime)
	defer cancel()
	return r.all(ctx), nil
}

// mayBegin tells whether a new run may begin after what is kept.
func (d *Doctor) mayBegin(p *gatewaystorev1.Proof) bool {
	switch r := p.GetRun(); {
	case reportOf(p) == nil:
		return true
	case r.GetEndTime() != nil:
		return d.cfg.Now().Sub(r.GetEndTime().AsTime()) >= freshFor
	default:
		return d.over(r)
	}
}

// reportOf is the report in a record; nil where there is none that can be read.
func reportOf(p *gatewaystorev1.Proof) *gatewayv1.DoctorReport {
	report := &gatewayv1.DoctorReport{}
	if p == nil || proto.Unmarshal(p.GetReport(), report) != nil {
		return nil
	}
	return report
}

// run is one run.
type run struct {
	cfg   Config
	id    string
	began *timestamppb.Timestamp

	mu     sync.Mutex
	report *gatewayv1.DoctorReport
	parts  [][]*doctorv1.DoctorCheck // by service
}

// all asks everybody at once.
func (r *run) all(ctx context.Context) *gatewayv1.DoctorReport {
	var asked sync.WaitGroup
	for i, s := range r.cfg.Services {
		asked.Go(func() { r.answered(ctx, i, r.ask(ctx, s)) })
	}
	asked.Go(func() { r.answered(ctx, len(r.cfg.Services), r.own(ctx)) })
	asked.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	conclude(r.report)
	r.keep(ctx, timestamppb.New(r.cfg.Now()))
	return r.report
}

// own is what this process says of itself.
func (r *run) own(ctx context.Context) []*doctorv1.DoctorCheck {
	checks := []*doctorv1.DoctorCheck{line(r.cfg.Own.Service, r.began, checkup.Well("%s answers, version %s.", r.cfg.Own.Service, r.cfg.Version))}
	return append(checks, r.cfg.Own.Examine(ctx)...)
}

// ask asks another service. One that does not answer is a line of its own.
func (r *run) ask(ctx context.Context, s Service) []*doctorv1.DoctorCheck {
	before := time.Now()
	answer, err := s.Client.Examine(ctx, &doctorv1.ExamineRequest{})
	c := checkup.Well("%s answers, version %s.", s.Name, answer.GetVersion())
	switch {
	case err != nil && (ctx.Err() != nil || apierr.Has(err, apierr.ReasonTimeout)):
		c = checkup.Fail(fmt.Sprintf("%s did not answer within %s: nothing is known of how it is.", s.Name, r.cfg.AnswerTime), "Look at its log, and whether its process still runs; restart one that stands still.")
	case err != nil:
		c = checkup.Fail(fmt.Sprintf("%s does not answer: %s", s.Name, apierr.From(err).Message()), "Start it, and look at its log: it is asked at the address that the gateway has of it.")
	}
	c.DurationMillis = time.Since(before).Milliseconds()
	return append([]*doctorv1.DoctorCheck{line(s.Name, r.began, c)}, answer.GetChecks()...)
}

// answered takes over what a service said, and keeps the report for those who look.
func (r *run) answered(ctx context.Context, i int, checks []*doctorv1.DoctorCheck) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts[i] = checks
	r.gather()
	r.keep(ctx, nil)
}

func (r *run) gather() {
	r.report.Checks = slices.Concat(r.parts...)
	count(r.report)
	r.report.State = doctorv1.DoctorCheck_RUNNING
}

// keep stores the report as it is, unless another run has begun meanwhile. A run does not fail for it: whoever waits
// gets the report.
func (r *run) keep(ctx context.Context, ended *timestamppb.Timestamp) {
	_, err := r.cfg.Store.ChangeDoctor(context.WithoutCancel(ctx), func(p *gatewaystorev1.Proof) (*gatewaystorev1.Proof, error) {
		if p.GetRun().GetId() != r.id {
			return nil, kv.ErrSkip
		}
		return r.record(ended)
	})
	if err != nil {
		r.cfg.Logger.WarnContext(ctx, "what the doctor found is not kept", logs.Err(err))
	}
}

func (r *run) record(ended *timestamppb.Timestamp) (*gatewaystorev1.Proof, error) {
	raw, err := proto.Marshal(r.report)
	if err != nil {
		return nil, fmt.Errorf("doctor: encode the report: %w", err)
	}
	return &gatewaystorev1.Proof{Report: raw, Run: &gatewaystorev1.DoctorRun{Id: r.id, BeginTime: r.began, EndTime: ended}}, nil
}

// line is the check of whether a service answers.
func line(service string, asked *timestamppb.Timestamp, c checkup.Check) *doctorv1.DoctorCheck {
	c.Name = reached
	return c.Proto(service, asked)
}

// asking is what is known of a service before it has answered.
func asking(service string, began *timestamppb.Timestamp) []*doctorv1.DoctorCheck {
	return []*doctorv1.DoctorCheck{{Name: reached, Service: service, State: doctorv1.DoctorCheck_RUNNING, Found: "Being asked.", Time: began}}
}

// conclude says what the checks of a run that has ended come to.
func conclude(r *gatewayv1.DoctorReport) {
	r.Running = false
	count(r)
	switch {
	case r.GetFailed() > 0:
		r.State = doctorv1.DoctorCheck_FAILED
	case r.GetWarnings() > 0:
		r.State = doctorv1.DoctorCheck_WARNING
	default:
		r.State = doctorv1.DoctorCheck_OK
	}
}

func count(r *gatewayv1.DoctorReport) {
	r.Ok, r.Warnings, r.Failed, r.Skipped = 0, 0, 0, 0
	for _, c := range r.GetChecks() {
		switch c.GetState() {
		case doctorv1.DoctorCheck_OK:
			r.Ok++
		case doctorv1.DoctorCheck_WARNING:
			r.Warnings++
		case doctorv1.DoctorCheck_FAILED:
			r.Failed++
		case doctorv1.DoctorCheck_SKIPPED:
			r.Skipped++
		case doctorv1.DoctorCheck_RUNNING, doctorv1.DoctorCheck_STATE_UNSPECIFIED:
		}
	}
}
