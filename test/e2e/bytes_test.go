package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// busybox starts an engine that has the image.
func busybox(t *testing.T) *rig.Engine {
	t.Helper()
	e := start(t, rig.Options{})
	gantry(t, e, "load", "-i", filepath.Join(os.Getenv(imagesEnv), "busybox.tar"))
	return e
}

// settle checks that list, log and machine agree.
func settle(t *testing.T, e *rig.Engine) {
	t.Helper()
	c, err := e.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Agrees(t.Context(), e); err != nil {
		t.Error(err)
	}
}

// TestNoByteIsLost runs a program that writes 64 KiB and ends at once, a
// thousand times from several clients: every byte and every code arrive. Each
// client uses one name again and again: with --rm it is free when run returns.
func TestNoByteIsLost(t *testing.T) {
	const clients = 4
	each := 250
	if testing.Short() {
		each = 8
	}
	t.Parallel()
	e := busybox(t)
	want := rig.Pattern()
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for i := range each {
				code := (client*each + i) % 120
				out, err := e.CLI(t.Context(), "run", "--rm", "--name", fmt.Sprintf("client%d", client), "--network", "none",
					"busybox", "sh", "-c", fmt.Sprintf("cat /pattern; exit %d", code)).Output()
				got, bad := codeOf(err)
				if bad != nil || got != code || !bytes.Equal(out, want) {
					t.Errorf("client %d, run %d: code %d, want %d; %d bytes, want %d; %v", client, i, got, code, len(out), len(want), rig.Explain(err))
					return
				}
			}
		})
	}
	all.Wait()
	settle(t, e)
	if list := gantry(t, e, "ps", "-aq"); list != "" {
		t.Errorf("containers are left:\n%s", list)
	}
}

// TestSlowReader reads 500 MB slowly from a container's output: the program
// is held up, and nothing is lost, doubled or out of order.
func TestSlowReader(t *testing.T) {
	parts := 7630 // of 64 KiB: 500 MB
	if testing.Short() {
		parts = 1000 // still far more than all buffers
	}
	t.Parallel()
	e := busybox(t)
	cmd := e.CLI(t.Context(), "run", "--name", "much", "--network", "none", "busybox", "sh", "-c",
		fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo $i; cat /pattern; i=$((i+1)); done; exit 21", parts))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := readSlowly(out, parts); err != nil {
		t.Error(err)
	}
	if code, err := codeOf(cmd.Wait()); code != 21 || err != nil {
		t.Errorf("it ended with %d, %v", code, err)
	}
	settle(t, e)
}

func readSlowly(out io.Reader, parts int) error {
	r := bufio.NewReaderSize(out, 64<<10)
	want := rig.Pattern()
	part := make([]byte, len(want))
	for i := range parts {
		if i%500 == 0 {
			time.Sleep(200 * time.Millisecond) // long enough for every buffer to fill
		}
		line, err := r.ReadString('\n')
		if err != nil || strings.TrimSpace(line) != strconv.Itoa(i) {
			return fmt.Errorf("part %d begins with %q, %v", i, line, err)
		}
		if _, err := io.ReadFull(r, part); err != nil || !bytes.Equal(part, want) {
			return fmt.Errorf("part %d is not whole: %v", i, err)
		}
	}
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		return fmt.Errorf("behind the end come %d bytes, %v", len(rest), err)
	}
	return nil
}

// TestManyBytesIn gives a container much to read: what it says comes back whole.
func TestManyBytesIn(t *testing.T) {
	t.Parallel()
	e := busybox(t)
	in := bytes.Repeat(rig.Pattern(), 300)
	cmd := e.CLI(t.Context(), "run", "--rm", "-i", "--network", "none", "busybox", "cat")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, in) {
		t.Errorf("%d bytes went in, %d came out, %v", len(in), len(out), rig.Explain(err))
	}
	// A reader that goes away ends the command, not the container.
	cmd = exec.Command("sh", "-c", "gantry run --name broken busybox sh -c 'while true; do echo x; done' | head -n 1")
	cmd.Env = append(os.Environ(), "GANTRY_HOST="+e.Host(), "PATH="+e.Bin+":"+os.Getenv("PATH"))
	if line, err := cmd.Output(); err != nil || string(line) != "x\n" {
		t.Errorf("head said %q, %v", line, errors.Join(err))
	}
	settle(t, e) // the output may be quicker than the log of the start
	if list := gantry(t, e, "ps", "--format", "{{.Names}}"); list != "broken\n" {
		t.Errorf("these run: %q", list)
	}
	gantry(t, e, "rm", "-f", "broken")
	settle(t, e)
}
