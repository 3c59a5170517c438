package execnative

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// childVar makes the test binary a driver process of its own, which starts
// what the variable holds and waits to be killed.
const childVar = "GANTRY_TEST_EXEC_CHILD"

// order is what a child driver is to start.
type order struct {
	Config driver.Config
	Starts []execdriver.Start
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childVar); text != "" {
		child(text)
		return
	}
	code := m.Run()
	if dir, err := buildShim(); err == nil && os.Getenv("GANTRY_BIN") == "" { // else it is not ours
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// child is a driver that is going to be killed. It prints one line for each
// start: an error, or "ok".
func child(text string) {
	var o order
	err := json.Unmarshal([]byte(text), &o)
	var d execdriver.Driver
	if err == nil {
		d, err = New(o.Config)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, r := range o.Starts {
		if _, err := d.Start(context.Background(), r); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
	select {}
}

// startInChild has another process start the containers, and kills it with
// SIGKILL when n of them were answered. What it leaves is for a new driver.
func (b *bench) startInChild(n int, starts ...execdriver.Start) {
	b.t.Helper()
	text, err := json.Marshal(order{b.cfg, starts})
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	for range n {
		if !lines.Scan() {
			b.t.Fatal("child driver ended early")
		}
		if lines.Text() != "ok" {
			b.t.Fatalf("child driver: %s", lines.Text())
		}
	}
}
