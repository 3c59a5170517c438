package conform

import (
	"testing"
)

// Testing makes a T of go test's.
func Testing(t *testing.T) T { return testingT{t} }

type testingT struct{ *testing.T }

// Run runs f as a subtest.
func (t testingT) Run(name string, f func(T)) bool {
	return t.T.Run(name, func(t *testing.T) { f(testingT{t}) })
}

// TempDir makes a directory; that of go test has too long a path for sockets.
func (t testingT) TempDir() string { return tempDir(t) }
