package testkit

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// Main runs the tests of a package and then check, such as a search for goroutines left behind, until
// it returns nil. The package fails when that takes longer than a busy machine needs for what is on
// its way to its end.
func Main(m *testing.M, check func() error) {
	code := m.Run()
	for deadline := time.Now().Add(startTimeout); code == 0; {
		err := check()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "after all tests:", err)
			code = 1
		}
		<-time.After(50 * time.Millisecond)
	}
	os.Exit(code) //nolint:forbidigo // this is the main of a process
}
