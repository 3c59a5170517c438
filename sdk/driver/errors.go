package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/internal/errclass"
)

// class ties one error class to its gRPC code and to the name by which it
// travels in the detail ErrorClass, for the classes that share a code.
type class struct {
	err  error
	code codes.Code
}

// name is the word that the class travels as.
func (c class) name() string { return errclass.Name(c.err) }

// classes lists them; where two share a code, the one that the bare code means
// comes first.
func classes() []class {
	return []class{
		{errdefs.ErrInvalidArgument, codes.InvalidArgument},
		{errdefs.ErrNotFound, codes.NotFound},
		{errdefs.ErrAlreadyExists, codes.AlreadyExists},
		{errdefs.ErrPermissionDenied, codes.PermissionDenied},
		{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
		{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
		{errdefs.ErrConflict, codes.FailedPrecondition},
		{errdefs.ErrNotModified, codes.FailedPrecondition},
		{errdefs.ErrAborted, codes.Aborted},
		{errdefs.ErrOutOfRange, codes.OutOfRange},
		{errdefs.ErrNotImplemented, codes.Unimplemented},
		{errdefs.ErrUnavailable, codes.Unavailable},
		{errdefs.ErrDataLoss, codes.DataLoss},
		{errdefs.ErrUnauthenticated, codes.Unauthenticated},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{errdefs.ErrUnknown, codes.Unknown},
		{errdefs.ErrInternal, codes.Internal},
	}
}

// classOf finds the class of err. What has none is Internal, as the contracts
// say.
func classOf(err error) class {
	all := classes()
	resolved := errdefs.Resolve(err)
	if resolved == errdefs.ErrUnknown && !errors.Is(err, errdefs.ErrUnknown) {
		resolved = errdefs.ErrInternal // that is how Resolve says "none"
	}
	for _, c := range all {
		if resolved == c.err {
			return c
		}
	}
	return all[len(all)-1]
}

// maxSentence bounds an error's sentence on the wire. gRPC puts it in a
// header, and a peer refuses headers that are too large.
const maxSentence = 4096

// Text makes a text fit for the wire, whose strings are UTF-8: names of files, of
// processes and of links are any bytes, and one that is not would cost the whole
// answer.
func Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// ToStatus turns an error into a gRPC status: its class becomes the code, its
// sentence the message. A status stays what it is.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok && s.GRPCStatus() != nil {
		return err
	}
	c := classOf(err)
	sentence := err.Error()
	if len(sentence) > maxSentence {
		sentence = sentence[:maxSentence-3] + "..."
	}
	s := status.New(c.code, Text(sentence))
	if detailed, err := s.WithDetails(&driverv1.ErrorClass{Class: c.name()}); err == nil {
		s = detailed
	}
	return s.Err()
}

// FromStatus turns what a call has returned into an error of its class, with
// its sentence untouched. Code that does not know gRPC tests it with errors.Is
// and the classes of github.com/containerd/errdefs.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	sentence := s.Message()
	if sentence == "" {
		sentence = fmt.Sprintf("the driver answered %s without a word", s.Code())
	}
	return &remoteError{class: statusClass(s), sentence: sentence}
}

// statusClass is the class named in the status's details, else the first one
// of its code.
func statusClass(s *status.Status) error {
	all := classes()
	for _, d := range s.Details() {
		named, ok := d.(*driverv1.ErrorClass)
		if !ok {
			continue
		}
		for _, c := range all {
			if c.name() == named.GetClass() && c.code == s.Code() {
				return c.err
			}
		}
	}
	for _, c := range all {
		if c.code == s.Code() {
			return c.err
		}
	}
	return errdefs.ErrUnknown
}

// remoteError is an error that a driver process has answered.
type remoteError struct {
	class    error
	sentence string
}

func (e *remoteError) Error() string { return e.sentence }
func (e *remoteError) Unwrap() error { return e.class }

// Errorf makes an error of a class of errdefs. The class is not part of the
// sentence: a person reads the sentence, a program tests the class.
func Errorf(class error, format string, args ...any) error {
	wrapped := fmt.Errorf(format, args...)
	return &classError{class: class, cause: wrapped}
}

// classError is a sentence with a class beside it.
type classError struct {
	class error
	cause error
}

func (e *classError) Error() string   { return e.cause.Error() }
func (e *classError) Unwrap() []error { return []error{e.class, e.cause} }

// ClassName is the name of err's class, e.g. "not-found", for reports and logs.
func ClassName(err error) string {
	if err == nil {
		return "success"
	}
	if errors.Is(err, context.Canceled) {
		return "canceled"
	}
	return classOf(err).name()
}
