package conform

import (
	"strings"

	"github.com/gantryd/gantry/sdk/driver"
)

// WantClass holds an error to a class, by its name (see driver.ClassName). It
// also wants a sentence that says more than the class.
func WantClass(t T, act string, err error, class string) {
	t.Helper()
	if got := driver.ClassName(err); got != class {
		t.Errorf("%s: got %s (%v), want %s", act, got, err, class)
		return
	}
	if err != nil && strings.ReplaceAll(err.Error(), " ", "-") == class {
		t.Errorf("%s: the error's sentence says no more than its class, %q", act, err)
	}
}
