package natsstore

import (
	"bytes"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

// NumberOf finds the number of the delivery with a fingerprint, if it is remembered.
func NumberOf(l *storev1.LedgerRecord, print []byte) (int32, bool) {
	prints := l.GetFingerprints()
	for rest := prints; ; {
		at := bytes.Index(rest, print)
		if at < 0 {
			break
		}
		if at += len(prints) - len(rest); at%inbox.FingerprintSize == 0 {
			return l.GetFingerprintedNumber() - int32((len(prints)-at)/inbox.FingerprintSize) + 1, true
		}
		rest = prints[at+1:]
	}
	for _, s := range l.GetSeen() {
		if bytes.Equal(s.GetFingerprint(), print) {
			return s.GetNumber(), true
		}
	}
	return 0, false
}

// NextNumber gives the next number to the delivery, or the push found without one, that has a fingerprint.
func NextNumber(l *storev1.LedgerRecord, print []byte) {
	if l.GetFingerprintedNumber() != l.GetLastNumber() { // an earlier version gave numbers meanwhile
		l.Fingerprints = nil
	}
	l.LastNumber++
	l.Fingerprints, l.FingerprintedNumber = append(l.Fingerprints, print...), l.GetLastNumber()
}
