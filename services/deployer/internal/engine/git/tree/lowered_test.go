package tree

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestLowered_givesWayToOthers(t *testing.T) {
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	var nice int
	err = lowered(func() (err error) {
		nice, err = unix.Getpriority(unix.PRIO_PROCESS, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if nice != 1 { // the system call says 20 less the niceness
		t.Errorf("priority %d", nice)
	}
	if now, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || now != before {
		t.Errorf("the others' is %d (%v), and was %d", now, err, before)
	}
}
