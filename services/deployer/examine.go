package deployer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/when"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	doctorv1 "devpilot.io/bitbucket/proto/gen/devpilot/doctor/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/examine"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/worker/host"
)

// workerChecks are the checks that a worker answers for itself.
var workerChecks = []string{"git", "sandbox", "disk"}

// Checks is what the doctor asks this service: whether each server has workers, and of each worker its machine. A process
// without the role api has no way to ask the others, and answers for its own git alone.
func (s *Service) Checks(context.Context) []checkup.Task {
	var tasks []checkup.Task
	if !s.cfg.Worker || !s.cfg.API {
		tasks = append(tasks, checkup.Task{Name: "git", Run: host.Git})
	}
	r := s.roles.Load()
	if r == nil || !s.cfg.API {
		return tasks
	}
	servers := r.records.Fleet.List()
	if len(servers) == 0 {
		servers = []*deployerv1.Server{{Id: fleet.DefaultServer}}
	}
	works := slices.ContainsFunc(servers, func(s *deployerv1.Server) bool { return len(s.GetWorkers()) > 0 })
	for _, server := range servers {
		if len(server.GetWorkers()) == 0 {
			tasks = append(tasks, checkup.Task{Name: "worker", Where: server.GetId(), Run: func(context.Context) checkup.Check { return noWorker(server, works) }})
		}
		for _, w := range server.GetWorkers() {
			tasks = append(tasks, s.ofWorker(server.GetId(), w)...)
		}
	}
	return tasks
}

// Access is what this process does in NATS, by its roles.
func (s *Service) Access() stream.Access {
	switch {
	case s.cfg.API && s.cfg.Worker:
		return AccessOf(roleAPI).And(AccessOf(roleWorker))
	case s.cfg.Worker:
		return AccessOf(roleWorker)
	}
	return AccessOf(roleAPI)
}

// noWorker says that a server is silent. Where others work it may be one that is not used any more.
func noWorker(server *deployerv1.Server, othersWork bool) checkup.Check {
	found := fmt.Sprintf("No worker of server %s has ever given a sign of life: what is to be deployed there waits.", server.GetId())
	if seen := server.GetLastSeenTime(); seen != nil {
		found = fmt.Sprintf("No worker of server %s has given a sign of life since %s: what is to be deployed there waits.", server.GetId(), when.UTC(seen.AsTime()))
	}
	if othersWork {
		return checkup.Warn(found, "Start a worker of that server, or move its apps to another one (devpilot servers move).")
	}
	return checkup.Fail(found, "Start a worker of that server (DEVPILOT_ROLES, DEVPILOT_SERVER), or look at its log.")
}

// ofWorker are the checks of one worker, which is asked once.
func (s *Service) ofWorker(server string, w *deployerv1.Worker) []checkup.Task {
	var once sync.Once
	var answer *doctorv1.ExamineResponse
	var failed error
	ask := func(ctx context.Context) (*doctorv1.ExamineResponse, error) {
		once.Do(func() { answer, failed = examine.Ask(ctx, s.deps.JS, server, w.GetId()) })
		return answer, failed
	}
	where := server + ": " + w.GetId()
	tasks := []checkup.Task{{Name: "worker", Where: where, Run: func(ctx context.Context) checkup.Check {
		if _, err := ask(ctx); err != nil {
			return checkup.Fail(fmt.Sprintf("The worker %s of server %s, whose last sign of life is of %s, does not answer: %v.", w.GetId(), server, when.UTC(w.GetLastSeenTime().AsTime()), err),
				"Look whether its process still runs, and at its log; one of before this version answers after its update.")
		}
		return checkup.Well("The worker %s of server %s answers, version %s; %d of %d deployments run.", w.GetId(), server, cmp.Or(w.GetVersion(), "unknown"), w.GetBusy(), w.GetSlots())
	}}}
	for _, name := range workerChecks {
		tasks = append(tasks, checkup.Task{Name: name, Where: where, Run: func(ctx context.Context) checkup.Check {
			answer, err := ask(ctx)
			if err != nil {
				return checkup.Skip("The worker does not answer.")
			}
			for _, c := range answer.GetChecks() {
				if c.GetName() == name {
					return checkup.Check{State: checkup.State(c.GetState().String()), Found: c.GetFound(), Remedy: c.GetRemedy()}
				}
			}
			return checkup.Skip("The worker says nothing of it.")
		}})
	}
	return tasks
}
