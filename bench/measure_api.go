package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
)

// measureAPI measures the engine alone: a client that stays on the bus.
func measureAPI(ctx context.Context, r *rig) ([]figure, error) {
	d, err := r.served(ctx)
	if err != nil {
		return nil, err
	}
	client, err := bus.Dial(ctx, bus.Options{Host: d.host, Name: "bench"})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	events, err := client.Events(ctx, 0, bus.Filter{Noun: core.KindContainer})
	if err != nil {
		return nil, err
	}
	defer events.Close()
	life := func(network string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return oneLife(ctx, client, events, network)
		}
	}
	bridge, none := &row{name: "bridge", once: life("bridge")}, &row{name: "none", once: life("none")}
	if err := r.inTurns(ctx, r.pairs, bridge, none); err != nil {
		return nil, err
	}
	b, n := statsOf(bridge.samples), statsOf(none.samples)
	return []figure{{
		name: "engine alone (a client on the bus): create, start, exit, remove on a bridge",
		goal: "median ≤ 12 ms", met: b.median <= 12*time.Millisecond, got: ms(b.median),
		detail: []string{"- bridge: " + b.String(), "- none: " + n.String(), "- from sending the command until the event `container.removed` is there; one connection for all"},
	}}, nil
}

// oneLife makes a container that runs true, and waits until it is removed.
func oneLife(ctx context.Context, client *bus.Client, events *bus.EventStream, network string) (time.Duration, error) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	id := hex.EncodeToString(raw)
	job, err := uuid.NewV7()
	if err != nil {
		return 0, err
	}
	cmd := &core.CreateContainer{
		ID: core.ContainerID(id), Name: "api-" + id[:12], Image: "docker.io/library/" + imageName + ":latest",
		Want: core.Running, AutoRemove: true,
		Spec: core.Spec{Process: core.Process{Cmd: []string{"true"}}, Network: core.NetworkSpec{Network: network}},
	}
	body, err := json.Marshal(cmd)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if _, err := client.Command(ctx, bus.Command{Job: job.String(), Name: core.CommandName(cmd), Body: body}); err != nil {
		return 0, err
	}
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return 0, err
		}
		if e.ID != id {
			continue
		}
		switch e.Name {
		case "container.removed":
			return time.Since(begun), nil
		case "container.start-failed":
			return 0, fmt.Errorf("the container did not start: %s", e.Line)
		}
	}
}
