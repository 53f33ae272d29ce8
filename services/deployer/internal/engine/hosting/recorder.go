package hosting

import (
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// stall is how long a visitor may take for the next part of an answer; a download may last for hours.
	stall = time.Minute
	// extend is how often the deadline is moved on.
	extend = 5 * time.Second
	// part is how much is read and written at once.
	part = 64 << 10
)

var parts = sync.Pool{New: func() any { return new([part]byte) }}

// recorder is the ResponseWriter of one request: it counts, moves the write deadline on while the
// visitor keeps reading, and notices when what is to be sent cannot be read to its end.
type recorder struct {
	http.ResponseWriter
	control  *http.ResponseController
	status   int
	bytes    int64
	deadline time.Time // when it was moved on last
	broken   bool      // less was sent than was announced, through the file's fault
}

func newRecorder(w http.ResponseWriter) *recorder {
	return &recorder{ResponseWriter: w, control: http.NewResponseController(w)}
}

// WriteHeader is http.ResponseWriter's.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if now := time.Now(); now.Sub(r.deadline) > extend {
		r.deadline = now
		_ = r.control.SetWriteDeadline(now.Add(stall)) // not every writer has deadlines; those of HTTPServer do
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom is io.ReaderFrom's: io.Copy uses it instead of a buffer of its own.
func (r *recorder) ReadFrom(src io.Reader) (sent int64, err error) {
	buf := parts.Get().(*[part]byte)
	defer parts.Put(buf)
	for {
		n, readErr := src.Read(buf[:])
		if n > 0 {
			written, err := r.Write(buf[:n])
			sent += int64(written)
			if err != nil {
				return sent, err
			}
		}
		if readErr == io.EOF { // as io.Copy does: a wrapped EOF is a failure
			return sent, nil
		}
		if readErr != nil {
			r.broken = true
			return sent, readErr
		}
	}
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
