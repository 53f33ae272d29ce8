package uploadpack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxLine is how long a line of the protocol may be, its length included.
const maxLine = 65520

// kind says what a line is.
type kind int

const (
	data      kind = iota
	flush          // ends a message
	delimiter      // ends a section
	end            // ends an answer
)

// errProtocol marks an answer that is not in git's protocol.
var errProtocol = errors.New("no answer of git's")

func protocolError(format string, args ...any) error {
	return fmt.Errorf("uploadpack: %w: %w", errProtocol, fmt.Errorf(format, args...))
}

// scanner reads lines of git's protocol: four hexadecimal digits of length, and what they count.
type scanner struct {
	r   io.Reader
	buf [maxLine]byte
}

// next returns a line without its line end. The bytes are good until the next call.
func (s *scanner) next() (line []byte, k kind, err error) {
	line, k, err = s.packet()
	if err != nil || k != data {
		return nil, k, err
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	if said, refused := bytes.CutPrefix(line, []byte("ERR ")); refused {
		return nil, 0, &RemoteError{Said: string(said)}
	}
	return line, data, nil
}

// packet returns what a length counts, as it is. The bytes are good until the next call.
func (s *scanner) packet() (content []byte, k kind, err error) {
	head := s.buf[:4]
	if _, err := io.ReadFull(s.r, head); err != nil {
		return nil, 0, s.cut(err)
	}
	n, err := strconv.ParseUint(string(head), 16, 16)
	if err != nil {
		return nil, 0, protocolError("bad line length character: %q", head)
	}
	switch {
	case n == 0:
		return nil, flush, nil
	case n == 1:
		return nil, delimiter, nil
	case n == 2:
		return nil, end, nil
	case n < 4, n > maxLine:
		return nil, 0, protocolError("bad line length %d", n)
	}
	content = s.buf[4:n]
	if _, err := io.ReadFull(s.r, content); err != nil {
		return nil, 0, s.cut(err)
	}
	return content, data, nil
}

// cut explains a read that failed; an answer ends with a flush, never before.
func (s *scanner) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return protocolError("it was cut off")
	}
	return err
}

// appendLine adds a line to a message.
func appendLine(b []byte, text string) []byte {
	return fmt.Appendf(b, "%04x%s\n", len(text)+5, text)
}

const (
	flushLine     = "0000"
	delimiterLine = "0001"
)
