package testkit

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// Waiting has twice as many tests of a package run beside each other as there are processors, unless
// the command line says how many. It is for TestMain of packages whose tests wait for most of their time.
func Waiting() {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if told {
		return
	}
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
		panic(err) // there is no such flag: this is no test
	}
}

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
