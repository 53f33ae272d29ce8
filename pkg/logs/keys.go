package logs

import (
	"log/slog"
	"time"
)

// The keys of all attributes.
const (
	KeyService     = "service"     // our service that logs
	KeyComponent   = "component"   // part of a process, by lifecycle name
	KeyVersion     = "version"     // of the build
	KeyRequestID   = "request_id"  // from the first entry point to the last line
	KeyTraceID     = "trace_id"    // OpenTelemetry, hex
	KeyCaller      = "caller"      // the service that made the RPC
	KeySubject     = "subject"     // on whose behalf
	KeyRPCMethod   = "rpc_method"  // full method, /devpilot.auth.v1.AuthService/IssueToken
	KeyRPCCode     = "rpc_code"    // gRPC code in words
	KeyHTTPMethod  = "http_method" // GET, POST, …
	KeyHTTPRoute   = "http_route"  // the pattern, not the path
	KeyHTTPStatus  = "http_status" // number
	KeyDuration    = "duration_ms" // milliseconds with fraction
	KeyWorkspace   = "workspace"   // Devpilot's, never Bitbucket's
	KeyApp         = "app"         // app id
	KeyDeployment  = "deployment"  // number
	KeyRepository  = "repository"  // id or full name
	KeyBranch      = "branch"
	KeyTag         = "tag"
	KeyCommit      = "commit"
	KeyDelivery    = "delivery" // number
	KeyWebhook     = "webhook"  // id
	KeyServer      = "server"   // where releases live
	KeyConnection  = "connection"
	KeyAttempt     = "attempt"  // 1, 2, 3 …
	KeyStream      = "stream"   // JetStream stream
	KeyConsumer    = "consumer" // durable consumer of it
	KeyReplicas    = "replicas" // of a stream, as found
	KeyBytes       = "bytes"    // how many
	KeyWished      = "wished"   // what was found differs from this
	KeyNATSSubject = "nats_subject"
	KeySequence    = "sequence" // of a message in its stream
	KeyBucket      = "bucket"
	KeyKey         = "key"
	KeyRevision    = "revision"
	KeyCount       = "count"
	KeyAddr        = "addr"
	KeyURL         = "url" // never with a query
	KeyPath        = "path"
	KeyState       = "state"
	KeyReason      = "reason"   // a reason of pkg/apierr, or a short word
	KeyHook        = "hook"     // a deployment hook's name
	KeyErr         = "err"      // the whole chain
	KeyErrKind     = "err_kind" // the kind of pkg/apierr
	KeyErrorID     = "error_id" // the id that an INTERNAL answer shows
	KeyStack       = "stack"    // of a recovered panic
	KeyRetryIn     = "retry_in_ms"
	KeyUntil       = "until" // when something ends
)

// Err is the attribute of an error; nil is shown as such.
func Err(err error) slog.Attr {
	if err == nil {
		return slog.String(KeyErr, "<nil>")
	}
	return slog.String(KeyErr, err.Error())
}

// Duration is the attribute of a time taken.
func Duration(d time.Duration) slog.Attr {
	return slog.Float64(KeyDuration, float64(d.Microseconds())/1000)
}
