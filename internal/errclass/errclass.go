// Package errclass names the error classes of containerd/errdefs, so that an
// error can cross a border (a subject, a socket, the log) as a word and a
// sentence, and be tested with errors.Is on the other side.
package errclass

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// Class ties an error that callers may test for to the word it travels as.
type Class struct {
	Err  error
	Name string
}

// All lists the sixteen classes of errdefs, and the two of package context that
// errdefs.Resolve knows beside them. The words are for ever: they are stored
// in the log.
func All() []Class {
	return []Class{
		{errdefs.ErrUnknown, "unknown"},
		{errdefs.ErrInvalidArgument, "invalid-argument"},
		{errdefs.ErrNotFound, "not-found"},
		{errdefs.ErrAlreadyExists, "already-exists"},
		{errdefs.ErrPermissionDenied, "permission-denied"},
		{errdefs.ErrResourceExhausted, "resource-exhausted"},
		{errdefs.ErrFailedPrecondition, "failed-precondition"},
		{errdefs.ErrConflict, "conflict"},
		{errdefs.ErrNotModified, "not-modified"},
		{errdefs.ErrAborted, "aborted"},
		{errdefs.ErrOutOfRange, "out-of-range"},
		{errdefs.ErrNotImplemented, "unimplemented"},
		{errdefs.ErrInternal, "internal"},
		{errdefs.ErrUnavailable, "unavailable"},
		{errdefs.ErrDataLoss, "data-loss"},
		{errdefs.ErrUnauthenticated, "unauthenticated"},
		{context.Canceled, "canceled"},
		{context.DeadlineExceeded, "deadline-exceeded"},
	}
}

// Name is the word of err's class. An error of no class is "internal": the
// contracts say that whoever returns one has a fault. The word of nil is empty.
func Name(err error) string {
	if err == nil {
		return ""
	}
	resolved := errdefs.Resolve(err)
	for _, c := range All() {
		if c.Err == resolved && (resolved != errdefs.ErrUnknown || errors.Is(err, errdefs.ErrUnknown)) {
			return c.Name
		}
	}
	return "internal"
}

// ByName is the class that a word names. A word of a later version is
// errdefs.ErrUnknown.
func ByName(name string) error {
	for _, c := range All() {
		if c.Name == name {
			return c.Err
		}
	}
	return errdefs.ErrUnknown
}

// Error is a sentence with a class beside it, and what a person can do about it.
type Error struct {
	Class    error  // one of All
	Sentence string // for a person; the class is not part of it
	Hint     string // what to do, or empty
	Cause    error  // what it wraps, or nil
}

// Error is the sentence.
func (e *Error) Error() string { return e.Sentence }

// Unwrap gives the class, and the cause if there is one.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Cause}
}

// Errorf makes an error of a class. A person reads the sentence, a program tests the
// class.
func Errorf(class error, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Class: class, Sentence: err.Error(), Cause: err}
}

// WithHint adds to err what a person can do about it. The class stays.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &Error{Class: ByName(Name(err)), Sentence: err.Error(), Hint: hint, Cause: err}
}

// Hint is what a person can do about err, or empty.
func Hint(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
