package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

// The exit codes. They stay as they are.
const (
	CodeDone         = 0
	CodeFailed       = 1
	CodeUsage        = 2
	CodeNotSignedIn  = 3
	CodeNotAllowed   = 4
	CodeNotFound     = 5
	CodeConflict     = 6
	CodeTryLater     = 7
	CodeDeployFailed = 10
	CodeCancelled    = 11
	CodeSuperseded   = 12
	CodeInterrupted  = 130
)

const codesHelp = `Exit codes:
  0    done; of deploy, log --follow, redeploy and rollback: the deployment is COMPLETED
  1    failed, for another reason than those below
  2    the command was called wrongly
  3    not signed in, or the key does not work any more
  4    not allowed
  5    there is no such thing
  6    there is such a thing already, or it changed meanwhile
  7    nobody answers, or not now: try again
  10   the deployment is FAILED
  11   the deployment is CANCELLED
  12   the deployment is SUPERSEDED by a newer one
  130  interrupted`

// ended is how a deployment ended.
type ended struct {
	app    string
	number int32
	state  devpilot.DeploymentState
	said   string
}

func (e ended) Error() string {
	s := fmt.Sprintf("deployment %d of %s is %s", e.number, e.app, e.state)
	if e.said != "" {
		s += ": " + e.said
	}
	return s
}

// code is the exit code of an error, and next what to type then; empty where the error says it itself.
func code(err error) (code int, next string) {
	var called usage
	var deployment ended
	var refused *devpilot.Error
	var login unfinished
	switch {
	case errors.As(err, &login):
		return login.code, "devpilot login"
	case errors.As(err, &called):
		return CodeUsage, ""
	case errors.As(err, &deployment):
		look := fmt.Sprintf("devpilot log %s %d", deployment.app, deployment.number)
		switch deployment.state {
		case devpilot.DeploymentStateCANCELLED:
			return CodeCancelled, ""
		case devpilot.DeploymentStateSUPERSEDED:
			return CodeSuperseded, "devpilot deployments " + deployment.app
		case devpilot.DeploymentStateFAILED:
			return CodeDeployFailed, look
		case devpilot.DeploymentStateCOMPLETED, devpilot.DeploymentStatePENDING, devpilot.DeploymentStatePROCESSING:
		}
		return CodeFailed, look
	case errors.Is(err, errNoLogin):
		return CodeNotSignedIn, ""
	case devpilot.Unanswered(err):
		return CodeTryLater, ""
	case errors.As(err, &refused):
		return refusedCode(refused.Problem)
	}
	return CodeFailed, ""
}

// nexts are the commands that mend a refusal.
var nexts = map[devpilot.Reason]string{
	devpilot.ReasonUnauthenticated:       "devpilot login",
	devpilot.ReasonLoginRequestNotFound:  "devpilot login",
	devpilot.ReasonAppNotFound:           "devpilot apps list",
	devpilot.ReasonAppExists:             "devpilot apps list",
	devpilot.ReasonDeploymentNotFound:    "devpilot deployments",
	devpilot.ReasonRepositoryNotFound:    "devpilot repos",
	devpilot.ReasonBranchNotFound:        "devpilot branches REPOSITORY",
	devpilot.ReasonTagNotFound:           "devpilot tags REPOSITORY",
	devpilot.ReasonCommitNotFound:        "devpilot commits REPOSITORY BRANCH",
	devpilot.ReasonCommitNotInBranch:     "devpilot commits REPOSITORY BRANCH",
	devpilot.ReasonWorkspaceNotFound:     "devpilot workspaces",
	devpilot.ReasonWorkspaceBeingDeleted: "devpilot workspaces list",
	devpilot.ReasonNotConnected:          "devpilot integration connect",
	devpilot.ReasonReconnectRequired:     "devpilot integration connect",
	devpilot.ReasonBrowserRequired:       "devpilot integration connect",
	devpilot.ReasonEtagMismatch:          "the same command again",
	devpilot.ReasonBitbucketUnavailable:  "devpilot integration status",
}

func refusedCode(p devpilot.Problem) (int, string) {
	next := nexts[p.Reason]
	switch p.Status {
	case http.StatusUnauthorized:
		return CodeNotSignedIn, next
	case http.StatusForbidden:
		return CodeNotAllowed, next
	case http.StatusNotFound:
		return CodeNotFound, next
	case http.StatusConflict, http.StatusPreconditionFailed:
		return CodeConflict, next
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return CodeTryLater, next
	case http.StatusBadRequest:
		return CodeUsage, next
	}
	return CodeFailed, next
}

// report says what went wrong, and the command to type next.
func report(ctx context.Context, p Process, ran *cobra.Command, err error) int {
	if err == nil {
		return CodeDone
	}
	if ctx.Err() != nil {
		fmt.Fprintln(p.Stderr, "devpilot: interrupted")
		return CodeInterrupted
	}
	exit, next := code(err)
	text := err.Error()
	if strings.HasPrefix(text, "required flag") || strings.HasPrefix(text, "if any flags in the group") { // cobra's own
		exit = CodeUsage
	}
	fmt.Fprintf(p.Stderr, "devpilot: %s\n", text)
	var refused *devpilot.Error
	if errors.As(err, &refused) {
		for _, f := range refused.Problem.Fields {
			fmt.Fprintf(p.Stderr, "  %s: %s\n", f.Name, f.Message)
		}
	}
	if devpilot.Unanswered(err) {
		fmt.Fprintln(p.Stderr, "Say with --url where Devpilot is, or start it.")
	}
	if exit == CodeUsage && ran != nil && next == "" {
		next = ran.CommandPath() + " --help"
	}
	if next != "" {
		fmt.Fprintf(p.Stderr, "Next: %s\n", next)
	}
	return exit
}
