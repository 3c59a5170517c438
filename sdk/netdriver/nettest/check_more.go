package nettest

import (
	"context"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func moreChecks() []check {
	return []check{
		{Name: "join", Promise: "A second network of the same run joins the first one's namespace with an interface of its own, or the driver says why not.", Run: checkJoin},
		{Name: "user-namespace", Promise: "With the ability \"userns\" the namespace is owned by the user namespace that was asked for; without it the driver answers Unimplemented, or makes no namespace.", Run: checkUserNS},
		{Name: "side-by-side", Promise: "Endpoints of different containers are served side by side.", Run: checkSideBySide},
		{Name: "same-endpoint-at-once", Promise: "One endpoint asked for several times at once is one endpoint.", Run: checkSameAtOnce},
	}
}

func checkJoin(ctx context.Context, b *bench) {
	one, two := makeNetwork(ctx, b), makeNetwork(ctx, b)
	r := ask(one, 2)
	first := attach(ctx, b, r)
	if first.Namespace.Mode != netdriver.NamespacePath {
		b.Logf("this driver makes no namespaces: nothing to join")
		return
	}
	join := ask(two, 2)
	join.Container, join.Join = r.Container, first.Namespace
	join.Gateway = netip.Addr{} // one default route is enough
	second, err := b.Driver().Attach(ctx, join)
	if errdefs.IsNotImplemented(err) {
		b.Logf("this driver joins no namespaces: %v", err)
		return
	}
	if err != nil {
		b.Fatalf("Attach a second network: %v", err)
	}
	if second.Namespace.Inode != first.Namespace.Inode {
		b.Errorf("the second network is in namespace %d, the first in %d", second.Namespace.Inode, first.Namespace.Inode)
	}
	if second.Interface == first.Interface {
		b.Errorf("both networks have the interface %q", first.Interface)
	}
	wantEndpoint(b, two, join, second)
	wantEndpoint(b, one, r, first)
	if err := b.Driver().Detach(ctx, join.EndpointKey); err != nil {
		b.Errorf("Detach the second network: %v", err)
	}
	wantEndpoint(b, one, r, first)
}

func checkUserNS(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	holder := exec.Command("sleep", "60")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 200_000, Size: 65536}}
	holder.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
	}
	if err := holder.Start(); err != nil {
		b.Logf("this machine makes no user namespaces: %v", err)
		return
	}
	b.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	path := "/proc/" + strconv.Itoa(holder.Process.Pid) + "/ns/user"
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		b.Fatalf("look at the user namespace: %v", err)
	}
	r := ask(n, 2)
	r.UserNS = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: path, Inode: st.Ino}
	info, err := b.Driver().Info(ctx)
	if err != nil {
		b.Fatalf("Info: %v", err)
	}
	able := slices.Contains(info.Abilities, netdriver.AbilityUserNS)
	e, err := b.Driver().Attach(ctx, r)
	switch {
	case err != nil && able:
		b.Fatalf("Attach with a user namespace, by a driver with the ability %q: %v", netdriver.AbilityUserNS, err)
	case err != nil:
		conform.WantClass(b, "Attach with a user namespace", err, "unimplemented")
		b.Logf("this driver serves no user namespaces: %v", err)
		return
	}
	wantEndpoint(b, n, r, e)
	if e.Namespace.Mode != netdriver.NamespacePath {
		return // whoever makes the namespace knows the user namespace as well
	}
	if !able {
		b.Errorf("the driver makes namespaces inside user namespaces, and does not name the ability %q", netdriver.AbilityUserNS)
	}
	owner, err := unix.IoctlRetInt(int(openNamespace(b, e.Namespace).Fd()), unix.NS_GET_USERNS)
	if err != nil {
		b.Fatalf("ask for the owner of the namespace: %v", err)
	}
	defer unix.Close(owner)
	var got unix.Stat_t
	if err := unix.Fstat(owner, &got); err != nil || got.Ino != st.Ino {
		b.Errorf("the namespace is owned by user namespace %d (%v), want %d", got.Ino, err, st.Ino)
	}
}

func checkSideBySide(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	d := b.Driver()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			r := ask(n, 2+i)
			for r.Run = 1; r.Run <= 3; r.Run++ {
				if _, err := d.Attach(ctx, r); err != nil {
					b.Errorf("Attach side by side: %v", err)
				}
				if _, err := d.List(ctx); err != nil {
					b.Errorf("List side by side: %v", err)
				}
				if err := d.Detach(ctx, r.EndpointKey); err != nil {
					b.Errorf("Detach side by side: %v", err)
				}
			}
		})
	}
	wg.Wait()
	wantItems(ctx, b, heldNetwork(n.ID))
}

func checkSameAtOnce(ctx context.Context, b *bench) {
	n := makeNetwork(ctx, b)
	r := ask(n, 2)
	d := b.Driver()
	endpoints := make([]netdriver.Endpoint, 3)
	var wg sync.WaitGroup
	for i := range endpoints {
		wg.Go(func() {
			var err error
			if endpoints[i], err = d.Attach(ctx, r); err != nil {
				b.Errorf("Attach, three at once: %v", err)
			}
		})
	}
	wg.Wait()
	for _, e := range endpoints[1:] {
		if e.Namespace.Inode != endpoints[0].Namespace.Inode {
			b.Errorf("one endpoint, asked for three times at once, has the namespaces %+v", endpoints)
		}
	}
	wantEndpoint(b, n, r, endpoints[0])
	wantItems(ctx, b, heldNetwork(n.ID), heldEndpoint(r, endpoints[0]))
}
