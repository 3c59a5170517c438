package plan

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gantryd/gantry/internal/stdio"
)

// constants reads "NAME = number" of the shim's headers.
func constants(t *testing.T, files ...string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	re := regexp.MustCompile(`(?m)\b([A-Z][A-Z0-9_]*) = (0x[0-9a-f]+|[0-9]+)`)
	for _, f := range files {
		b, err := os.ReadFile("../shim/" + f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range re.FindAllStringSubmatch(string(b), -1) {
			v, err := strconv.ParseInt(m[2], 0, 64)
			if err != nil {
				t.Fatal(err)
			}
			if old, ok := all[m[1]]; ok && old != v {
				t.Errorf("%s is %d and %d", m[1], old, v)
			}
			all[m[1]] = v
		}
	}
	return all
}

// TestNumbersAreTheShims compares what both languages say about the formats.
func TestNumbersAreTheShims(t *testing.T) {
	c := constants(t, "plan.h", "shim.h", "monitor.h")
	want := map[string]int64{
		"PLAN_MAGIC": planMagic, "PLAN_VERSION": Version, "PLAN_HEADER": headerBytes, "STEP_HEADER": stepBytes,
		"MAX_PLAN": MaxPlan, "MAX_STEPS": MaxSteps, "MAX_FILES": MaxFiles, "MAX_STRING": MaxString,
		"MAX_PATH": MaxPath, "MAX_ARGS": MaxArgs, "MAX_TRIES": MaxTries, "MAX_PARAMS": MaxParams, "MAX_ATTRS": MaxAttrs,
		"MAX_GROUPS": MaxGroups, "MAX_FILTER": MaxFilter, "MAX_DATA": MaxData, "MAX_NAME": MaxName,
		"MAX_LOG_NAME": MaxLogName, "MAX_KEEP": MaxKeep, "MAX_MASK": MaxMask, "MAX_RING": MaxRing,
		"MIN_BUFFER": minRing, "MAX_BUFFER": maxRing, "PID_ROOM": PIDRoom,
		"REPORT_LISTENER": int64(ReportListener), "REPORT_FINAL": int64(reportFinal),
		"REPORT_CONSOLE": int64(ReportConsole), "FLAG_TIMEOUT": int64(FlagTimeout),
		"WAIT_ATTACH": int64(WaitAttach), "OPEN_STDIN": int64(OpenStdin), "TERMINAL": int64(Terminal), "STDIN_ONCE": int64(StdinOnce), "QUIET": int64(Quiet),
		"CREATE_NONE": int64(CreateNone), "CREATE_DIR": int64(CreateDir), "CREATE_FILE": int64(CreateFile),
		"PARAM_FLAG": int64(ParamFlag), "PARAM_STRING": int64(ParamString), "PARAM_FD": int64(ParamFD),
		"SEND_MAGIC": sendMagic, "SEND_FILES": sendFiles, "SEND_PLAN": sendPlan, "SEND_GO": sendGo,
		"SEND_ABORT": sendAbort, "SEND_EARLY": sendEarly, "SEND_STANDBY": sendStandby, "EARLY_LEAVE": earlyLeave, "EARLY_SHIM_CGROUP": earlyShimCgroup, "EARLY_CGROUP": earlyCgroup, "SEND_HEADER": sendHeader, "MAX_PIECE": maxPiece, "MAX_PASSED": maxPassed,
		"REPORT_SHIM": int64(ReportShim), "REPORT_INIT": int64(ReportInit), "REPORT_SYNC": int64(ReportSync),
		"REPORT_GATE": int64(ReportGate), "REPORT_RUNNING": int64(ReportRunning),
		"REPORT_WARNING": int64(ReportWarning), "REPORT_ERROR": int64(ReportError),
		"REPORT_EXITED": int64(ReportExited), "REPORT_MAGIC": reportMagic,
		"RECORD_MAGIC": recordMagic, "RECORD_SIZE": RecordSize,
		"FLAG_OOM": int64(FlagOOM), "FLAG_FAILED": int64(FlagFailed),
		"STATE_MADE": int64(StateMade), "STATE_RUNNING": int64(StateRunning),
		"STATE_EXITED": int64(StateExited), "STATE_FAILED": int64(StateFailed),
		"FRAME_HELLO": int64(stdio.FrameHello), "FRAME_STDIN": int64(stdio.FrameStdin),
		"FRAME_STDIN_EOF": int64(stdio.FrameStdinEOF), "FRAME_RESIZE": int64(stdio.FrameResize),
		"FRAME_DETACH": int64(stdio.FrameDetach), "FRAME_STDOUT": int64(stdio.FrameStdout),
		"FRAME_STDERR": int64(stdio.FrameStderr), "FRAME_LOST": int64(stdio.FrameLost),
		"FRAME_EXIT": int64(stdio.FrameExit), "FRAME_STATE": int64(stdio.FrameState),
		"MAX_FRAME": stdio.MaxFrame, "PROTOCOL": stdio.Protocol,
		"LOG_STDOUT": int64(stdio.Stdout), "LOG_STDERR": int64(stdio.Stderr), "LOG_GAP": int64(stdio.Gap),
	}
	for s := StageMonitor; s <= StageExec; s++ {
		want["STAGE_"+strings.ToUpper(s.String())] = int64(s)
	}
	for _, k := range kindNames {
		want["OP_"+strings.ToUpper(strings.ReplaceAll(k.name, "-", "_"))] = int64(k.kind)
	}
	for name, v := range want {
		if got, ok := c[name]; !ok || got != v {
			t.Errorf("%s: here %d, in the shim %d (%v)", name, v, got, ok)
		}
		delete(c, name)
	}
	// What only one side knows must be meant so.
	for name := range c {
		prefix, _, _ := strings.Cut(name, "_")
		switch prefix {
		case "OP", "STAGE", "FRAME":
			if name != "FRAME_HEADER" {
				t.Errorf("%s is only the shim's", name)
			}
		}
	}
}
