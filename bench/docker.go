package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// dockerd is a Docker engine of our own, on directories below the scratch
// directory and without networks, with one container named "held" running.
type dockerd struct {
	cmd  *exec.Cmd
	host string
	logs *os.File
}

// docker starts one; nil where Debian's docker.io cannot be had.
func (r *rig) docker(ctx context.Context) (*dockerd, error) {
	if err := install(ctx, "dockerd", "docker.io", "the engine that gantry is compared with"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no comparison with Docker:", err)
		return nil, nil
	}
	logs, err := os.Create(filepath.Join(r.scratch, "dockerd.log"))
	if err != nil {
		return nil, err
	}
	run := filepath.Join(r.run, "d")
	d := &dockerd{host: "unix://" + run + "/docker.sock", logs: logs}
	d.cmd = exec.Command("dockerd", "--data-root", filepath.Join(r.scratch, "docker"), "--exec-root", run, "--pidfile", run+"/pid",
		"--host", d.host, "--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs", "--cgroup-parent", "/"+r.name)
	d.cmd.Stdout, d.cmd.Stderr = logs, logs
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	if err := d.prepare(ctx, r); err != nil {
		said, _ := os.ReadFile(logs.Name()) // for the message
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, said[max(0, len(said)-2000):]), d.stop())
	}
	return d, nil
}

func (d *dockerd) prepare(ctx context.Context, r *rig) error {
	for end := time.Now().Add(time.Minute); d.command("version").Run() != nil; {
		if time.Now().After(end) || ctx.Err() != nil {
			return errors.New("dockerd does not answer")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if out, err := d.command("load", "-i", r.image.archive).CombinedOutput(); err != nil {
		return fmt.Errorf("docker load: %w\n%s", err, out)
	}
	if out, err := d.command("run", "-d", "--name", "held", "--network", "none", imageName, "sleep", "100000").CombinedOutput(); err != nil {
		return fmt.Errorf("docker run: %w\n%s", err, out)
	}
	return nil
}

func (d *dockerd) command(args ...string) *exec.Cmd {
	return exec.Command("docker", append([]string{"--host", d.host}, args...)...)
}

// stop removes the container and ends the engine with all that it has started.
func (d *dockerd) stop() error {
	defer d.logs.Close()
	_ = d.command("rm", "-f", "held").Run() // dockerd ends its containers too
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = d.cmd.Process.Kill() }) // fails if it has ended
	defer timer.Stop()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("dockerd ended badly: %w", err)
	}
	return nil
}
