package doctor

import (
	"context"

	"github.com/nats-io/nats-server/v2/server"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/services/allinone"
)

// natsTask is a check of NATS, where the program has one that is named.
func (x *exam) natsTask(t checkup.NATSTask) checkup.Task {
	return checkup.Task{Name: t.Name, Run: func(ctx context.Context) checkup.Check {
		switch {
		case x.program.withoutNATS:
			return checkup.Skip("%s keeps nothing in NATS.", x.flags.Service)
		case x.flags.NATSURL.IsZero() && x.flags.Service == whole && t.Name == "nats":
			return x.embeddedNATS()
		case x.flags.NATSURL.IsZero() && x.flags.Service == whole:
			return x.flags.EmbeddedNATS(t.Name)
		case x.flags.NATSURL.IsZero():
			return checkup.Skip("DEVPILOT_NATS_URL is not set.")
		case x.nats == nil:
			return checkup.Skip("DEVPILOT_INSTALLATION cannot be used.")
		}
		return t.Run(x.nats, ctx)
	}}
}

// embeddedNATS tells of the NATS in the program.
func (x *exam) embeddedNATS() checkup.Check {
	if running, _ := x.running(); running {
		return checkup.Well("Embedded, nats-server %s, in the program that runs here; see process for how it is.", server.VERSION)
	}
	if !x.hasStore() {
		return checkup.Well("Embedded, nats-server %s. The first start makes its store in %s.", server.VERSION, x.storeDir())
	}
	return checkup.Well("Embedded, nats-server %s, with its store in %s. The program does not run.", server.VERSION, x.storeDir())
}

// redisTask is a check of Redis, where the program has one that is named.
func (x *exam) redisTask(name string, check func(r *checkup.Redis, ctx context.Context) checkup.Check) checkup.Task {
	return checkup.Task{Name: name, Run: func(ctx context.Context) checkup.Check {
		installation, err := x.flags.Name()
		switch {
		case x.flags.RedisURL.IsZero() && x.flags.Service == whole:
			return allinone.EmbeddedRedis()
		case x.flags.RedisURL.IsZero():
			return checkup.Skip("DEVPILOT_REDIS_URL is not set.")
		case err != nil:
			return checkup.Skip("DEVPILOT_INSTALLATION cannot be used.")
		}
		return check(x.flags.ExaminedRedis(x.flags.PlaintextFlags, installation, x.owner), ctx)
	}}
}

// user is the program's user of NATS.
func (x *exam) user() string {
	if x.flags.Service == "deployer" && len(x.flags.Roles) == 1 {
		return "deployer-" + x.flags.Roles[0]
	}
	return x.flags.Service
}
