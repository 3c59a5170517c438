// Package wire is what test/vm and its guest say to each other: the manifest on
// the tests' disk, and a line of JSON for each thing that happens in a machine.
package wire

import "time"

// Port is the name of the virtio port that carries the results out.
const Port = "gantry.results"

// Weak is the directory beside the manifest with the programs that have switches.
const Weak = "weak"

// Alive is what a machine says on its console that is only asked whether it runs.
const Alive = "guest: alive"

// Manifest says what a machine is to run.
type Manifest struct {
	Root     string        // where the tree belongs: its path is compiled into the tests
	Run      string        // only tests that match
	Skip     string        // not tests that match
	Each     time.Duration // how long a program may go on without a test that begins or ends
	Short    bool          // big numbers smaller: the machine is translated
	Packages []Package
}

// Package is one compiled test program.
type Package struct {
	Path   string // below the module
	Dir    string // where it is to run
	Binary string // beside the manifest
}

// Message is one line of the results.
type Message struct {
	Kind    string   // one of the kinds below
	Package string   `json:",omitempty"`
	Text    string   `json:",omitempty"` // of output, in the words of -test.v=test2json; of a fact, its value
	Name    string   `json:",omitempty"` // of a fact
	Code    int      `json:",omitempty"` // of the end of a package
	Left    []string `json:",omitempty"` // at the end of a package: what it left on the machine
	Hung    []string `json:",omitempty"` // at the end of a package: the tests that it was ended in; the rest follows
	Again   bool     `json:",omitempty"` // at the beginning of a package: only what failed, once more
}

// The kinds of messages, in the order in which they come.
const (
	Fact   = "fact"   // something about the machine
	Begin  = "begin"  // the tests of a package begin
	Output = "output" // they say something
	End    = "end"    // they have ended
	Over   = "over"   // all have
)
