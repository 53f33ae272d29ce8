package installation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/installation/store/v1"
)

// RestoreStream is the bare name of a stream that is there while a restore is not whole. It holds no messages.
const RestoreStream = "DEVPILOT_RESTORE"

// ErrRestoring keeps a process from starting on half of what a backup holds.
var ErrRestoring = errors.New("a restore of this installation has begun and is not whole: wait for it, or, if it was interrupted, " +
	"begin it anew with devpilot restore --again")

// BeginRestore keeps all processes of the installation from starting until EndRestore. jetstream.ErrStreamNameAlreadyInUse, wrapped, says that a
// restore has begun already.
func BeginRestore(ctx context.Context, js jetstream.JetStream) error {
	names := stream.InstallationOf(js)
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: names.Stream(RestoreStream), Subjects: []string{names.Subject("devpilot.restore.v1")}, Description: "a restore is not whole", Storage: jetstream.FileStorage, MaxMsgs: 1,
		Metadata: map[string]string{"devpilot-restore-began": time.Now().UTC().Format(time.RFC3339Nano)}, // no two are the same stream
	})
	if err != nil {
		return fmt.Errorf("installation: begin a restore: %w", err)
	}
	return nil
}

// EndRestore says that the restore is whole.
func EndRestore(ctx context.Context, js jetstream.JetStream) error {
	err := js.DeleteStream(ctx, stream.InstallationOf(js).Stream(RestoreStream))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("installation: end a restore: %w", err)
	}
	return nil
}

// Restoring tells whether a restore has begun that is not whole, and since when.
func Restoring(ctx context.Context, js jetstream.JetStream) (since time.Time, yes bool, err error) {
	s, err := js.Stream(ctx, stream.InstallationOf(js).Stream(RestoreStream))
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return time.Time{}, false, nil
	case err != nil:
		return time.Time{}, false, fmt.Errorf("installation: look for a restore: %w", err)
	}
	return s.CachedInfo().Created, true, nil
}

// Record is the installation's record as it is stored, for a backup, and its id; both are empty where no process has made
// the stores anybody's yet.
func Record(ctx context.Context, js jetstream.JetStream) (id string, record []byte, err error) {
	rec, err := stored(ctx, js)
	if err != nil || rec == nil {
		return "", nil, err
	}
	if record, err = proto.Marshal(rec); err != nil {
		return "", nil, fmt.Errorf("installation: write its record: %w", err)
	}
	return rec.GetId(), record, nil
}

// Opens is ErrKeyset unless the keysets are those of the installation whose record it is.
func Opens(record []byte, keysets seal.Keysets) error {
	rec := &storev1.Installation{}
	if err := proto.Unmarshal(record, rec); err != nil {
		return fmt.Errorf("installation: read its record: %w", err)
	}
	return opens(rec, keysets)
}

// stored reads the record without opening the bucket, which would make it; nil where there is none.
func stored(ctx context.Context, js jetstream.JetStream) (*storev1.Installation, error) {
	names := stream.InstallationOf(js)
	s, err := js.Stream(ctx, names.Stream(kv.StreamName(Bucket)))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("installation: look for its record: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, names.Subject("$KV."+Bucket+"."+recordKey))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("installation: read its record: %w", err)
	}
	rec := &storev1.Installation{}
	if err := proto.Unmarshal(m.Data, rec); err != nil {
		return nil, fmt.Errorf("installation: read its record: %w", err)
	}
	return rec, nil
}
