package core

// StopEngine says that the engine process is about to end. Containers go on;
// built-in networks that nobody uses are given back, so that an engine without
// containers leaves nothing on the machine.
type StopEngine struct{}

func (*StopEngine) name() string { return "engine.stop" }

func (*StopEngine) decide(s *State, _ Request) ([]Event, error) {
	events := []Event{&EngineStopping{Header: about(Noun{KindEngine, s.Engine.ID})}}
	for _, n := range s.Nouns() {
		if w := s.Networks[NetworkID(n.ID)]; n.Kind == KindNetwork && w.Builtin && w.Slot.State == Held && w.Used && len(s.attached(w.ID)) == 0 {
			events = append(events, &NetworkIdle{Header: about(n)})
		}
	}
	return events, nil
}

// EngineStopping says that the engine process ends because it was told to.
type EngineStopping struct{ Header }

func (*EngineStopping) name() string { return "engine.stopping" }

func (*EngineStopping) apply(*State) []Noun { return nil }

// NetworkIdle says that nobody needs a built-in network for now: it is given
// back until somebody does.
type NetworkIdle struct{ Header }

func (*NetworkIdle) name() string { return "network.idle" }

func (e *NetworkIdle) apply(s *State) []Noun {
	n := s.Networks[NetworkID(e.ID)]
	n.turn(e.Seq, func() { n.Used = false })
	return []Noun{n.ID.noun()}
}
