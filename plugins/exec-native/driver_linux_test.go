package execnative

import "testing"

func TestHello(t *testing.T) {
	b := newBench(t)
	out, e := b.run(b.request("echo hello; id; hostname; pwd; env; cat /proc/self/cgroup; mount; ps; cat /proc/self/status | grep -i 'cap\\|nonew\\|secc\\|grou'; ls -la /dev /; ip a; exit 3"))
	t.Logf("%+v\n%s", e, out)
}
