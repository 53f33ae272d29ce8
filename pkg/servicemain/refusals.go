package servicemain

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
)

// refusalLife is how long a process is not ready after NATS did not let it do something: longer than it waits
// at most before it tries again to open its stores.
const refusalLife = 30 * time.Second

// Refusals remember what NATS does not let a process do. NATS answers nothing to a request that it does not
// allow, so that what was asked ends as a timeout, and says beside it what it refused. The zero value is
// ready to use, and safe for concurrent use.
type Refusals struct {
	mu   sync.Mutex
	last error
	at   time.Time
}

// note remembers a refusal, and logs one that is news.
func (r *Refusals) note(err error, logger *slog.Logger) {
	err = fmt.Errorf("NATS does not let this process's user do it (DEVPILOT_NATS_CREDENTIALS_FILE, DEVPILOT_NATS_NKEY_FILE, or the user in DEVPILOT_NATS_URL): give it the permissions that `devpilot nats-permissions` prints: %w", err)
	r.mu.Lock()
	news := r.last == nil || r.last.Error() != err.Error() || time.Since(r.at) >= refusalLife
	r.last, r.at = err, time.Now()
	r.mu.Unlock()
	if news {
		logger.Error("nats refuses", logs.Err(err))
	}
}

// Ready is nil, or says what was refused last, for half a minute.
func (r *Refusals) Ready(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil || time.Since(r.at) >= refusalLife {
		return nil
	}
	return r.last
}
