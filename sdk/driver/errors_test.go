package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Every class crosses the wire, wrapped or not, with its sentence untouched.
func TestClassesCross(t *testing.T) {
	for _, c := range classes() {
		for _, err := range []error{
			c.err,
			fmt.Errorf("attach network web: %w", c.err),
			Errorf(c.err, "attach network web: %w", io.ErrUnexpectedEOF),
		} {
			sent := ToStatus(err)
			if got := status.Code(sent); got != c.code {
				t.Errorf("%v: code %v, want %v", err, got, c.code)
			}
			got := FromStatus(sent)
			if !errors.Is(got, c.err) {
				t.Errorf("%v: came back without its class %v", err, c.err)
			}
			if got.Error() != err.Error() {
				t.Errorf("%q came back as %q", err, got)
			}
			if ClassName(got) != c.name() {
				t.Errorf("%v: class name %s, want %s", err, ClassName(got), c.name())
			}
		}
	}
}

func TestUnclassifiedIsInternal(t *testing.T) {
	got := FromStatus(ToStatus(errors.New("odd")))
	if !errdefs.IsInternal(got) || got.Error() != "odd" {
		t.Errorf("%v (%s)", got, ClassName(got))
	}
}

// A driver in another language sends no details: the code is enough.
func TestBareCode(t *testing.T) {
	for code, is := range map[codes.Code]func(error) bool{
		codes.NotFound: errdefs.IsNotFound, codes.FailedPrecondition: errdefs.IsFailedPrecondition,
		codes.Unimplemented: errdefs.IsNotImplemented, codes.Unknown: errdefs.IsUnknown,
		codes.Canceled: func(err error) bool { return errors.Is(err, context.Canceled) },
	} {
		got := FromStatus(status.Error(code, "the sentence"))
		if !is(got) || got.Error() != "the sentence" {
			t.Errorf("%v: %v (%s)", code, got, ClassName(got))
		}
	}
	if got := FromStatus(status.Error(codes.NotFound, "")); got.Error() == "" || !errdefs.IsNotFound(got) {
		t.Errorf("without a sentence: %q", got)
	}
}

// The sentence travels in a header, which must not grow without bound.
func TestLongSentence(t *testing.T) {
	got := FromStatus(ToStatus(Errorf(errdefs.ErrDataLoss, "%s", strings.Repeat("long ", 10_000))))
	if !errdefs.IsDataLoss(got) || len(got.Error()) != maxSentence {
		t.Errorf("%d bytes (%s)", len(got.Error()), ClassName(got))
	}
}

func TestNilAndForeign(t *testing.T) {
	if ToStatus(nil) != nil || FromStatus(nil) != nil || ClassName(nil) != "success" {
		t.Error("nil is not nil any more")
	}
	if got := FromStatus(io.EOF); !errors.Is(got, io.EOF) {
		t.Errorf("an error that is no status: %v", got)
	}
}
