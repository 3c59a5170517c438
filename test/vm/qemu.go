package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gantryd/gantry/test/vm/guest/wire"
)

// machine is one boot.
type machine struct {
	kernel       kernel
	init, cgroup string
	leave        []string // packages, and all below them, that other machines run
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %s, cgroup %s", m.kernel.version, m.init, m.cgroup)
}

// accelerated says whether machines can use the processor itself. That there is
// a /dev/kvm is not enough: where this machine is a guest without nested paging
// (a paravirtual KVM, say) it starts machines that never get anywhere. So a
// kernel is booted and has to come as far as our init. Without KVM qemu
// translates, which is ten times slower.
func accelerated(ctx context.Context, dir, asked string, k kernel, guest string) bool {
	if asked != "" {
		return asked == "kvm"
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return false
	}
	const patience = 15 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	program, err := k.image()
	if err != nil {
		return false
	}
	ram, err := initramfs(guest, nil)
	initrd := filepath.Join(dir, "initramfs.probe")
	if err != nil || os.WriteFile(initrd, ram, 0o644) != nil {
		return false
	}
	console := filepath.Join(dir, "probe.log")
	cmd := qemu(ctx, true, "-kernel", program, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 vm.init=none", "-serial", "file:"+console)
	err = cmd.Run()
	said, _ := os.ReadFile(console)
	works := err == nil && strings.Contains(string(said), wire.Alive)
	if !works {
		progress("/dev/kvm is there but boots nothing within %v: qemu translates", patience)
	}
	return works
}

// translatedCPU is a small processor. Of one with everything that qemu knows the
// kernel uses what only silicon makes fast: rep movsb (ERMS) is translated byte
// by byte, every access to user memory is fenced by stac and clac (SMAP), tables
// of pages have five levels (LA57), and a switch of tasks saves the vector
// registers (XSAVE).
const translatedCPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+aes,+pclmulqdq,+rdrand,+fsgsbase"

// qemu is a machine without any disk yet. Its processors are translated by one
// thread, in turns. With a thread for each, a processor spins for a lock whose holder
// is not running, three times as long for two machines at once on two processors; and
// Linux 7.2 ended in a panic, in an instruction that it was patching.
func qemu(ctx context.Context, fast bool, args ...string) *exec.Cmd {
	accel, cpu := "tcg,thread=single,tb-size=1024", translatedCPU
	if fast {
		// A machine that is itself a guest may be shown this register and not let
		// it be written; then qemu stops.
		accel, cpu = "kvm", "host,-arch-capabilities"
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35", "-accel", accel, "-cpu", cpu,
		"-smp", "2", "-m", "2560", "-nic", "none"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// commandLine is the kernel's.
func (m machine) commandLine(fast bool) string {
	line := "console=ttyS0 quiet loglevel=4 panic=-1 root=/dev/vda rw apparmor=1 security=apparmor " +
		"systemd.show_status=0 vm.init=" + m.init + " vm.cgroup=" + m.cgroup + " vm.leave=" + strings.Join(m.leave, ",")
	if !fast {
		// What costs much when translated and that no test asks for. Without
		// tsc=reliable the kernel distrusts the clock of a machine that others
		// interrupt, and every look at the time becomes an access to a device.
		// With timers of high resolution each sleep sets the device anew, and a
		// program of Go sleeps for microseconds often.
		line += " mitigations=off init_on_alloc=0 randomize_kstack_offset=off transparent_hugepage=madvise" +
			" tsc=reliable clocksource=tsc highres=off nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
	}
	if m.cgroup == "v2" {
		line += " cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
	}
	return line
}

// boot runs a machine to its end, with a directory of its own, and tells what it
// said.
func boot(ctx context.Context, dir string, o options, img image, st *staged, m machine, fast bool) *result {
	res := &result{name: m.String(), facts: map[string]string{}, verbose: o.verbose}
	begun := time.Now()
	progress("%s", m)
	limit := o.limit
	if len(m.leave) > 0 {
		res.facts["left to other machines"] = strings.Join(m.leave, ", ")
	}
	if !fast {
		res.facts["accelerator"] = "none: translated by qemu, its processors in turns"
	} else {
		res.facts["accelerator"] = "KVM"
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	console := filepath.Join(dir, "console.log")
	err := bootQemu(ctx, dir, img, st, m, fast, console, res)
	res.took = time.Since(begun)
	res.facts["tree"] = st.commit
	if ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("took longer than %v", limit)
	}
	if err == nil && !res.over {
		err = fmt.Errorf("the machine ended before its tests")
	}
	if err != nil {
		said, _ := os.ReadFile(console) // it may not have begun
		res.err = fmt.Sprintf("%v\n%s", err, tail(said))
	}
	res.settleRest()
	progress("%s", res.line())
	return res
}

func bootQemu(ctx context.Context, dir string, img image, st *staged, m machine, fast bool, console string, res *result) error {
	ram, err := initramfs(st.guest, img.modules[m.kernel.version])
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	initrd := filepath.Join(dir, "initramfs")
	if err := os.WriteFile(initrd, ram, 0o644); err != nil {
		return err
	}
	disk := func(path string) string {
		return "file=" + path + ",format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap"
	}
	program, err := m.kernel.image()
	if err != nil {
		return err
	}
	cmd := qemu(ctx, fast,
		"-kernel", program, "-initrd", initrd, "-append", m.commandLine(fast),
		"-drive", disk(img.root), "-drive", disk(st.disk),
		"-serial", "file:"+console,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=results,signal=off",
		"-device", "virtserialport,chardev=results,name="+wire.Port)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // for what machines write
	return follow(cmd, res)
}

// hereName is what the machine that boots the others is called.
const hereName = "this machine"

// here runs the same tests on this machine.
func here(ctx context.Context, dir string, o options, st *staged) *result {
	res := &result{name: hereName, facts: map[string]string{"accelerator": "none needed"}, verbose: o.verbose}
	begun := time.Now()
	progress("this machine")
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, st.guest, "run", filepath.Join(dir, "disk/manifest.json"), "here")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = 5 * time.Second
	if err := follow(cmd, res); err != nil {
		res.err = err.Error()
	}
	res.took = time.Since(begun)
	res.facts["tree"] = st.commit
	res.settleRest()
	progress("%s", res.line())
	return res
}

// follow starts a program that speaks in messages, and takes them.
func follow(cmd *exec.Cmd, res *result) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stdin, err := cmd.StdinPipe() // an end of input would close qemu's side
	if err != nil {
		return err
	}
	defer stdin.Close()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("read the results: %w", err)
		}
		var msg wire.Message
		if err := json.Unmarshal(line, &msg); err != nil {
			return fmt.Errorf("read the results: %w: %.100q", err, line)
		}
		res.take(msg)
		res.stream = append(res.stream, line...)
	}
	return cmd.Wait()
}
