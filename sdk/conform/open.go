package conform

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/gantryd/gantry/sdk/driver"
)

// Value opens drivers in this process, by the function that makes them.
func Value[D any](open func(driver.Config) (D, error)) Open[D] {
	return func(_ T, c driver.Config) (Opened[D], error) {
		d, err := open(c)
		return Opened[D]{Driver: d, Close: func() error { return closeDriver(d) }}, err
	}
}

// closeDriver closes d if it can be closed.
func closeDriver(d any) error {
	if c, ok := d.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// OverGRPC opens drivers in this process and puts a real gRPC connection over
// a unix socket between them and the checks.
func OverGRPC[D any](open func(driver.Config) (D, error), service func(D) driver.Service, client func(grpc.ClientConnInterface) D) Open[D] {
	return func(_ T, c driver.Config) (Opened[D], error) {
		d, err := open(c)
		if err != nil {
			return Opened[D]{}, err
		}
		dir, err := socketDir(c)
		if err != nil {
			return Opened[D]{}, err
		}
		path := filepath.Join(dir, "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			return Opened[D]{}, err
		}
		server := driver.NewServer(service(d))
		go server.Serve(l) // ends with Stop
		cc, err := grpc.NewClient("unix://"+path, driver.DialOptions()...)
		if err != nil {
			server.Stop()
			return Opened[D]{}, err
		}
		return Opened[D]{Driver: client(cc), Close: func() error {
			cc.Close()
			server.Stop()
			return closeDriver(d)
		}}, nil
	}
}

// socketDir makes a directory beside the driver's own ones, so that it lives as
// long as they do.
func socketDir(c driver.Config) (string, error) {
	return os.MkdirTemp(filepath.Dir(c.Run), "s")
}

// Program opens drivers as processes of the program at path, as the engine
// does: own environment, go-plugin, a process group that can be killed as one.
func Program[D any](kind, path string, p plugin.Plugin) Open[D] {
	return func(t T, c driver.Config) (Opened[D], error) {
		var none Opened[D]
		cmd := exec.Command(path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		sockets, err := socketDir(c)
		if err != nil {
			return none, err
		}
		cmd.Env = append(c.Environ(), driver.EnvSocketDir+"="+sockets, "PATH="+os.Getenv("PATH"))
		log := hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: logWriter{t}, DisableTime: true})
		client := plugin.NewClient(driver.ClientConfig(kind, p, cmd, log))
		connected, err := client.Client()
		if err != nil {
			client.Kill()
			return none, fmt.Errorf("start %s: %w", path, err)
		}
		raw, err := connected.Dispense(kind)
		if err != nil {
			client.Kill()
			return none, err
		}
		return Opened[D]{
			Driver: raw.(D),
			Exited: client.Exited,
			Close: func() error {
				client.Kill()
				return nil
			},
			Kill: func() {
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				awaitExit(client.Exited)
				client.Kill()
			},
		}, nil
	}
}

// logWriter notes a driver's lines.
type logWriter struct{ t T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("driver: %s", trimmed(p))
	return len(p), nil
}

func trimmed(p []byte) []byte {
	for len(p) > 0 && p[len(p)-1] == '\n' {
		p = p[:len(p)-1]
	}
	return p
}
