// Command run runs all tests and sums them up: how many passed and failed, and
// which were skipped and why. Skipped is not passed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// summary is what became of the tests.
type summary struct {
	passed, failed int
	skipped        []string
	output         map[string][]string // of each test, until it ends
	slow           []string
	broken         []string // packages with a failure, or that failed outside of a test
	failures       []string // what each failed test said
}

func main() {
	begun := time.Now()
	if signal.Ignored(os.Interrupt) { // a shell's "make test &": the tests interrupt programs that inherit it
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	args := append([]string{"test", "-json", "-timeout", "20m", "-count=1"}, os.Args[1:]...)
	if len(os.Args) == 1 {
		args = append(args, "./...")
	}
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "go test:", err)
		os.Exit(1)
	}
	s := &summary{output: map[string][]string{}}
	s.read(out)
	err = cmd.Wait()
	s.print(time.Since(begun))
	if err != nil || s.failed > 0 {
		os.Exit(1)
	}
}

func (s *summary) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // what the compiler has to say
			continue
		}
		s.take(e)
	}
}

func (s *summary) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		s.output[key] = append(s.output[key], e.Output)
		return
	case "build-output":
		fmt.Print(e.Output)
		return
	case "pass":
		if e.Test != "" {
			s.passed++
		} else {
			fmt.Printf("ok   %-60s %6.1fs\n", short(e.Package), e.Elapsed)
		}
		if e.Test != "" && e.Elapsed > 20 && !strings.Contains(e.Test, "/") {
			s.slow = append(s.slow, fmt.Sprintf("%.0fs %s %s", e.Elapsed, short(e.Package), e.Test))
		}
	case "skip":
		if e.Test != "" {
			s.skipped = append(s.skipped, fmt.Sprintf("%s %s: %s", short(e.Package), e.Test, reason(s.output[key])))
		}
	case "fail":
		s.fail(e, s.output[key])
	default:
		return
	}
	delete(s.output, key)
}

func (s *summary) fail(e event, output []string) {
	if e.Test != "" {
		s.failed++
	} else {
		s.broken = append(s.broken, short(e.Package))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "FAIL %s %s (%.1fs)\n", short(e.Package), e.Test, e.Elapsed)
	for _, line := range output {
		text.WriteString("     " + line)
	}
	fmt.Print(text.String())
	if e.Test != "" {
		s.failures = append(s.failures, text.String())
	}
}

// reason is the last line that a skipped test said.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "no reason given"
}

func short(pkg string) string { return strings.TrimPrefix(pkg, "github.com/gantryd/gantry/") }

func (s *summary) print(took time.Duration) {
	fmt.Printf("\nall tests took %v\n", took.Round(time.Second))
	for _, t := range s.slow {
		fmt.Println("slow:", t)
	}
	for _, t := range s.skipped {
		fmt.Println("skipped:", t)
	}
	for _, t := range s.failures { // once more: a reader of the end alone shall know
		fmt.Print(t)
	}
	if len(s.broken) > 0 {
		fmt.Println("failed packages:", strings.Join(s.broken, " "))
		if s.failed == 0 {
			s.failed = len(s.broken)
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
}
