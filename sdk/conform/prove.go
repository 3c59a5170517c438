package conform

import (
	"testing"

	"github.com/gantryd/gantry/sdk/driver"
)

// Flaw is a driver with something wrong, and the check that must see it.
type Flaw[D any] struct {
	Check string
	What  string
	Open  func(driver.Config) (D, error)
}

// Prove tests a suite itself: a good driver keeps it, and each of its checks
// catches at least one driver with a flaw. A check that cannot fail is none.
func Prove[D driver.Common](t *testing.T, s Suite[D], good Open[D], flaws []Flaw[D]) {
	t.Run("good", func(t *testing.T) { s.Run(Testing(t), good) })
	caught := map[string]bool{}
	for _, f := range flaws {
		t.Run(f.Check+"/"+f.What, func(t *testing.T) {
			one := s
			one.Checks = nil
			for _, c := range s.Checks {
				if c.Name == f.Check {
					one.Checks = append(one.Checks, c)
				}
			}
			if len(one.Checks) != 1 {
				t.Fatalf("the suite has %d checks of that name", len(one.Checks))
			}
			r := Record("", nil, func(t T) { one.Run(t, Value(f.Open)) })
			if !r.Failed {
				t.Errorf("the check does not see it")
			}
			for _, part := range r.Parts {
				t.Logf("it says: %q", part.Messages)
			}
			caught[f.Check] = true
		})
	}
	for _, c := range s.Checks {
		if !caught[c.Name] {
			t.Errorf("no driver with a flaw is tried for the check %s", c.Name)
		}
	}
}
