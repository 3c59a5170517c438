package rig

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

// Client talks to an engine on the bus, without the gantry command.
type Client struct{ *bus.Client }

// Dial connects to the engine.
func (e *Engine) Dial(ctx context.Context) (*Client, error) {
	c, err := bus.Dial(ctx, bus.Options{Host: e.Host(), Name: "rig"})
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}

// NewID makes an id of a container or network.
func NewID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// NewJob makes an id of a job.
func NewJob() string { return uuid.Must(uuid.NewV7()).String() }

// Send sends a command under a job id and returns when it is accepted.
func (c *Client) Send(ctx context.Context, job string, cmd core.Command) (bus.Receipt, error) {
	body, err := json.Marshal(cmd)
	if err != nil {
		return bus.Receipt{}, err
	}
	return c.Command(ctx, bus.Command{Job: job, Name: core.CommandName(cmd), Body: body})
}

// Do sends a command and waits until its job has ended; a job that failed is an
// error.
func (c *Client) Do(ctx context.Context, cmd core.Command) error {
	job := NewJob()
	if _, err := c.Send(ctx, job, cmd); err != nil {
		return fmt.Errorf("%s: %w", core.CommandName(cmd), err)
	}
	j, err := c.Ended(ctx, job)
	if err != nil {
		return err
	}
	if j.State != core.JobDone {
		return fmt.Errorf("%s: job %s: %+v", core.CommandName(cmd), j.State, j.Fault)
	}
	return nil
}

// Ended waits until a job has ended.
func (c *Client) Ended(ctx context.Context, job string) (core.Job, error) {
	for {
		var out query.JobDetail
		if err := c.Query(ctx, query.JobInspect, query.RefIn{Ref: job}, &out); err != nil {
			return out.Job, fmt.Errorf("inspect job %s: %w", job, err)
		}
		if !out.Job.Open() {
			return out.Job, nil
		}
		if err := pause(ctx, 3*time.Millisecond); err != nil {
			return out.Job, fmt.Errorf("job %s (%s) does not end: %w", job, out.Job.Command, err)
		}
	}
}

// Load loads an archive.
func (c *Client) Load(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	up, s, err := c.Upload(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	return c.Do(ctx, &core.LoadImage{Archive: up.Path})
}

// Container tells all about one.
func (c *Client) Container(ctx context.Context, ref string) (query.ContainerDetail, error) {
	var d query.ContainerDetail
	err := c.Query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d)
	return d, err
}

// Containers lists all.
func (c *Client) Containers(ctx context.Context) ([]query.Container, error) {
	var l query.Containers
	err := c.Query(ctx, query.ContainerList, query.ListIn{All: true}, &l)
	return l.Containers, err
}

// Settle waits until the engine owes nothing to the world and nothing is in
// flight.
func (c *Client) Settle(ctx context.Context) error {
	for {
		var s query.Steps
		if err := c.Query(ctx, query.StepList, nil, &s); err != nil {
			return err
		}
		var i query.Info
		if err := c.Query(ctx, query.EngineInfo, nil, &i); err != nil {
			return err
		}
		if !i.Opening && len(s.Steps) == 0 && i.Owed == 0 && i.InFlight == 0 && i.OpenJobs == 0 {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("the engine does not settle: %d open jobs, steps %+v", i.OpenJobs, s.Steps)
		}
	}
}

// Logs is what a container has written to its standard output.
func (c *Client) Logs(ctx context.Context, ref string) ([]byte, error) {
	body, err := json.Marshal(query.LogsIn{Ref: ref})
	if err != nil {
		return nil, err
	}
	s, err := c.Stream(ctx, bus.StreamRequest{Op: query.OpLogs, Body: body}, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var out bytes.Buffer
	buf := make([]byte, stdio.MaxFrame)
	for {
		f, err := stdio.ReadFrame(s, buf)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return out.Bytes(), err
		}
		if f.Type == stdio.FrameStdout {
			out.Write(f.Payload)
		}
	}
}

// VerifyLog checks the engine's log from its first byte to its last.
func (e *Engine) VerifyLog(ctx context.Context) (eventlog.Summary, error) {
	var found []error
	sum, err := eventlog.Verify(ctx, e.Root+"/log", func(f eventlog.Finding) {
		found = append(found, errors.New(f.String()))
	})
	return sum, errors.Join(append(found, err)...)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
