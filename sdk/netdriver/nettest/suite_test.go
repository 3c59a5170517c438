package nettest

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// altered is the reference with some of its methods replaced.
type altered struct {
	*reference
	info   func() (driver.Info, error)
	create func(context.Context, netdriver.Network) error
	remove func(context.Context, string) error
	attach func(context.Context, netdriver.Attach) (netdriver.Endpoint, error)
	detach func(context.Context, netdriver.EndpointKey) error
}

func (a *altered) Info(ctx context.Context) (driver.Info, error) {
	if a.info != nil {
		return a.info()
	}
	return a.reference.Info(ctx)
}

func (a *altered) CreateNetwork(ctx context.Context, n netdriver.Network) error {
	if a.create != nil {
		return a.create(ctx, n)
	}
	return a.reference.CreateNetwork(ctx, n)
}

func (a *altered) RemoveNetwork(ctx context.Context, id string) error {
	if a.remove != nil {
		return a.remove(ctx, id)
	}
	return a.reference.RemoveNetwork(ctx, id)
}

func (a *altered) Attach(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	if a.attach != nil {
		return a.attach(ctx, r)
	}
	return a.reference.Attach(ctx, r)
}

func (a *altered) Detach(ctx context.Context, k netdriver.EndpointKey) error {
	if a.detach != nil {
		return a.detach(ctx, k)
	}
	return a.reference.Detach(ctx, k)
}

// flaw alters the reference.
func flaw(check, what string, alter func(a *altered)) conform.Flaw[netdriver.Driver] {
	w := &world{}
	return conform.Flaw[netdriver.Driver]{Check: check, What: what, Open: func(c driver.Config) (netdriver.Driver, error) {
		a := &altered{reference: w.open(c)}
		alter(a)
		return a, nil
	}}
}

// asks makes a flaw of what the driver does with its question.
func asks(check, what string, change func(*netdriver.Attach)) conform.Flaw[netdriver.Driver] {
	return flaw(check, what, func(a *altered) {
		a.attach = func(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
			changed := r
			change(&changed)
			e, err := a.reference.Attach(ctx, changed)
			if changed.EndpointKey != r.EndpointKey {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.endpoints[r.EndpointKey] = a.endpoints[changed.EndpointKey]
				delete(a.endpoints, changed.EndpointKey)
			}
			return e, err
		}
	})
}

// answers makes a flaw of an endpoint's answer.
func answers(check, what string, change func(*netdriver.Endpoint)) conform.Flaw[netdriver.Driver] {
	return flaw(check, what, func(a *altered) {
		a.attach = func(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
			e, err := a.reference.Attach(ctx, r)
			change(&e)
			return e, err
		}
	})
}

func forgetful(check string) conform.Flaw[netdriver.Driver] {
	return conform.Flaw[netdriver.Driver]{Check: check, What: "forgets at a restart",
		Open: func(c driver.Config) (netdriver.Driver, error) { return newReference(c), nil }}
}

// needsTap makes the device node where a container lacks it.
func needsTap(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Fatalf("the reference driver makes tap devices: %v", err)
	}
}

func TestSuite(t *testing.T) {
	needsTap(t)
	w := &world{}
	good := conform.Value(func(c driver.Config) (netdriver.Driver, error) { return w.open(c), nil })
	conform.Prove(t, Suite(), good, append(networkFlaws(), endpointFlaws()...))
}

func TestOverGRPC(t *testing.T) {
	needsTap(t)
	w := &world{}
	Suite().Run(conform.Testing(t), OverGRPC(func(c driver.Config) (netdriver.Driver, error) { return w.open(c), nil }))
}

func networkFlaws() []conform.Flaw[netdriver.Driver] {
	return []conform.Flaw[netdriver.Driver]{
		flaw("info", "has no name", func(a *altered) {
			a.info = func() (driver.Info, error) { return driver.Info{Version: "1"}, nil }
		}),
		flaw("create-network", "refuses a repeat", func(a *altered) {
			a.create = func(ctx context.Context, n netdriver.Network) error {
				if _, ok := a.networks[n.ID]; ok {
					return driver.Errorf(errdefs.ErrConflict, "network %s is there", n.ID)
				}
				return a.reference.CreateNetwork(ctx, n)
			}
		}),
		forgetful("create-network"),
		flaw("unknown-option", "takes every option", func(a *altered) {
			a.create = func(ctx context.Context, n netdriver.Network) error {
				n.Options = nil
				return a.reference.CreateNetwork(ctx, n)
			}
		}),
		flaw("unknown-option", "does not name it", func(a *altered) {
			a.create = func(ctx context.Context, n netdriver.Network) error {
				if len(n.Options) > 0 {
					return driver.Errorf(errdefs.ErrInvalidArgument, "there is an option that is not known")
				}
				return a.reference.CreateNetwork(ctx, n)
			}
		}),
		flaw("subnet-in-use", "takes it all the same", func(a *altered) {
			a.create = func(_ context.Context, n netdriver.Network) error {
				a.networks[n.ID] = n
				return nil
			}
		}),
		flaw("remove-network", "refuses what is not held", func(a *altered) {
			a.remove = func(ctx context.Context, id string) error {
				if _, ok := a.networks[id]; !ok {
					return driver.Errorf(errdefs.ErrNotFound, "network %s", id)
				}
				return a.reference.RemoveNetwork(ctx, id)
			}
		}),
	}
}

func endpointFlaws() []conform.Flaw[netdriver.Driver] {
	return []conform.Flaw[netdriver.Driver]{
		asks("attach", "gives another address", func(r *netdriver.Attach) { r.Address = host(r.Address.Masked(), 9) }),
		asks("attach", "routes another way", func(r *netdriver.Attach) { r.Gateway = host(r.Address.Masked(), 7).Addr() }),
		answers("attach", "tells another inode", func(e *netdriver.Endpoint) { e.Namespace.Inode++ }),
		answers("attach", "names another interface", func(e *netdriver.Endpoint) { e.Interface = "eth7" }),
		answers("attach", "answers the machine's namespace", func(e *netdriver.Endpoint) {
			e.Namespace = netdriver.Namespace{Mode: netdriver.NamespaceHost}
		}),
		asks("attach-files", "leaves out the name servers", func(r *netdriver.Attach) { r.DNS = nil }),
		asks("attach-files", "leaves out the names", func(r *netdriver.Attach) { r.Names = nil }),
		flaw("attach-repeated", "makes another one", func(a *altered) { a.attach = a.anew }),
		forgetful("attach-repeated"),
		flaw("attach-no-network", "calls it Internal", func(a *altered) {
			a.attach = func(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
				if _, ok := a.networks[r.Network]; !ok {
					return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrInternal, "no network %s", r.Network)
				}
				return a.reference.Attach(ctx, r)
			}
		}),
		asks("attach-mac", "takes one of its own", func(r *netdriver.Attach) { r.MAC = "" }),
		flaw("endpoints-apart", "puts all into one namespace", func(a *altered) { a.attach = a.together() }),
		forgetful("outlives-the-driver"),
		flaw("detach", "refuses what is not held", func(a *altered) {
			a.detach = func(ctx context.Context, k netdriver.EndpointKey) error {
				if _, ok := a.endpoints[k]; !ok {
					return driver.Errorf(errdefs.ErrNotFound, "endpoint %v", k)
				}
				return a.reference.Detach(ctx, k)
			}
		}),
		flaw("next-run", "gives the address back late", func(a *altered) { a.late() }),
		flaw("join", "makes a namespace of its own", func(a *altered) {
			a.attach = func(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
				r.Join = netdriver.Namespace{}
				return a.reference.Attach(ctx, r)
			}
		}),
		flaw("user-namespace", "names the ability and has not got it", func(a *altered) {
			a.info = func() (driver.Info, error) {
				return driver.Info{Name: "reference", Version: "1", Abilities: []string{netdriver.AbilityUserNS}}, nil
			}
		}),
		asks("user-namespace", "ignores it", func(r *netdriver.Attach) { r.UserNS = netdriver.Namespace{} }),
		flaw("side-by-side", "fails when asked twice at once", func(a *altered) { a.attach = a.busy() }),
		flaw("same-endpoint-at-once", "makes one for each", func(a *altered) { a.attach = a.anew }),
	}
}

// anew makes an endpoint anew at every call.
func (a *altered) anew(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	a.mu.Lock()
	delete(a.endpoints, r.EndpointKey)
	a.mu.Unlock()
	return a.reference.Attach(ctx, r)
}

// together joins every endpoint to the first one's namespace.
func (a *altered) together() func(context.Context, netdriver.Attach) (netdriver.Endpoint, error) {
	var first netdriver.Namespace
	return func(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
		r.Join = first
		e, err := a.reference.Attach(ctx, r)
		if first.Mode == "" {
			first = e.Namespace
		}
		return e, err
	}
}

// late does not let an address be used again after Detach.
func (a *altered) late() {
	used := false
	a.attach = func(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
		if used {
			return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrAlreadyExists, "the address %v is in use", r.Address)
		}
		return a.reference.Attach(ctx, r)
	}
	a.detach = func(ctx context.Context, k netdriver.EndpointKey) error {
		used = true
		return a.reference.Detach(ctx, k)
	}
}

// busy refuses a call while another one is in it. The first waits for another one.
func (a *altered) busy() func(context.Context, netdriver.Attach) (netdriver.Endpoint, error) {
	turn, refused := make(chan struct{}, 1), make(chan struct{})
	var once sync.Once
	return func(ctx context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
			select {
			case <-refused:
			case <-ctx.Done(): // nobody comes: the check does not ask side by side
			}
			return a.reference.Attach(ctx, r)
		default:
			once.Do(func() { close(refused) })
			return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrUnavailable, "another endpoint is being made")
		}
	}
}
