package sandbox

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestOwnGroup(t *testing.T) {
	const first = "9:name=systemd:/\n8:pids:/user.slice/a\n3:cpu,cpuacct:/b\n0::/unified\n"
	for controller, want := range map[string]string{"pids": "/user.slice/a", "cpuacct": "/b", "": "/unified", "systemd": "", "cpus": ""} {
		if got, ok := ownGroup(first, controller); got != want || ok != (want != "") {
			t.Errorf("%q: %q %t", controller, got, ok)
		}
	}
	if _, ok := ownGroup("0::/system.slice/devpilot.service\n", "pids"); ok {
		t.Error("version 2 names no controllers")
	}
}

// Where control groups cannot be made, as for an ordinary user, that is no error of the hook.
func TestGroup_countsAndGoes(t *testing.T) {
	g, err := newGroup(4)
	if os.Getuid() != 0 {
		if err == nil {
			t.Error("an ordinary user made a control group")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read go; sleep 1000 & sleep 1000 & echo started; wait")
	in, out := must(cmd.StdinPipe()), newLines()
	cmd.Stdout = writer{out}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	out.await(t, "started")
	if n, err := g.tasks(); n != 3 || err != nil {
		t.Errorf("%d tasks, %v", n, err)
	}
	members := strings.Fields(must(readAt(g.parent, g.name+"/cgroup.procs")))
	for _, p := range members {
		_ = exec.CommandContext(t.Context(), "kill", "-KILL", p).Run()
	}
	_ = cmd.Wait()
	g.remove()
	if again, err := newGroup(4); err != nil {
		t.Error(err)
	} else {
		again.remove()
	}
}
