package errclass

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

func TestEachClassGoesThereAndBack(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range All() {
		if seen[c.Name] {
			t.Errorf("the word %q stands for two classes", c.Name)
		}
		seen[c.Name] = true
		err := fmt.Errorf("start container a: %w", Errorf(c.Err, "no such thing"))
		if got := Name(err); got != c.Name {
			t.Errorf("Name(%v) = %q, want %q", c.Err, got, c.Name)
		}
		if !errors.Is(&Error{Class: ByName(c.Name), Sentence: "x"}, c.Err) {
			t.Errorf("ByName(%q) is not %v", c.Name, c.Err)
		}
	}
	if len(seen) != 18 {
		t.Errorf("%d classes, want the 16 of errdefs and 2 of context", len(seen))
	}
}

func TestNoClass(t *testing.T) {
	if got := Name(errors.New("boom")); got != "internal" {
		t.Errorf("an error without a class is %q, want internal", got)
	}
	if got := Name(nil); got != "" {
		t.Errorf("nil is %q", got)
	}
	if ByName("of-a-later-version") != errdefs.ErrUnknown {
		t.Error("an unknown word is not ErrUnknown")
	}
}

func TestHintKeepsClassAndSentence(t *testing.T) {
	err := WithHint(Errorf(errdefs.ErrNotFound, "no such image: x"), "load it first")
	if !errdefs.IsNotFound(err) || err.Error() != "no such image: x" || Hint(err) != "load it first" {
		t.Errorf("got %v, hint %q, class %s", err, Hint(err), Name(err))
	}
	if Hint(errors.New("x")) != "" {
		t.Error("a hint out of nothing")
	}
}
