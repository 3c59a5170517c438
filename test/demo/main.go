// Command demo shows gantry in one go: a private engine in a scratch directory
// runs the image it brings along, on its bridge network, and tells from its log
// how that came about. Nothing is left behind.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the programs")
	flag.Parse()
	if err := demo(*bin); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(bin string) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "gantry-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // said by what is left of it
	stop, err := startEngine(bin, scratch)
	if err != nil {
		return err
	}
	defer func() {
		if e := stop(); err == nil {
			err = e
		}
	}()
	show := func(args ...string) error {
		fmt.Printf("\n$ gantry %s\n", strings.Join(args, " "))
		c := exec.Command(filepath.Join(bin, "gantry"), args...)
		c.Env = append(os.Environ(), "GANTRY_HOST=unix://"+filepath.Join(scratch, "run", "gantry.sock"))
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		return c.Run()
	}
	for _, args := range [][]string{
		{"load", "-i", filepath.Join(scratch, "run", "hello.tar")},
		{"run", "--name", "first", "--network", "bridge", "hello"},
		{"ps", "-a"},
		{"log", "--tree", "--container", "first"},
		{"why", "first"},
		{"rm", "first"},
		{"log", "verify"},
	} {
		if err := show(args...); err != nil {
			return fmt.Errorf("gantry %s: %w", args[0], err)
		}
	}
	return nil
}

// startEngine starts gantryd and waits until it says that it is ready.
func startEngine(bin, scratch string) (stop func() error, err error) {
	suffix := make([]byte, 3)
	_, _ = rand.Read(suffix) // never fails (crypto/rand)
	args := []string{"--root", filepath.Join(scratch, "root"), "--run", filepath.Join(scratch, "run"), "--name", "demo-" + hex.EncodeToString(suffix)}
	fmt.Printf("$ gantryd %s\n", strings.Join(args, " "))
	gantryd := exec.Command(filepath.Join(bin, "gantryd"), args...)
	logs, err := os.Create(filepath.Join(scratch, "gantryd.log"))
	if err != nil {
		return nil, err
	}
	gantryd.Stderr = logs
	out, err := gantryd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := gantryd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		if err := gantryd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		if err := gantryd.Wait(); err != nil {
			return fmt.Errorf("the engine ended badly: %w", err)
		}
		return nil
	}
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "ready") {
				ready <- lines.Text()
			}
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	select {
	case line := <-ready:
		fmt.Println(line)
		return stop, nil
	case <-ctx.Done():
		said, _ := os.ReadFile(logs.Name()) // for the message
		_ = stop()                          // the first error is the one that matters
		return nil, fmt.Errorf("gantryd does not get ready:\n%s", said)
	}
}
