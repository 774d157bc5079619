package dwf

// #include <dwf.h>
import "C"

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// Status is the kind of an error, to be compared with errors.Is:
//
//	if errors.Is(err, dwf.ErrBusy) { ... }
type Status int32

const (
	// ErrInvalidArgument: an argument or option is not valid.
	ErrInvalidArgument Status = C.DWF_INVALID_ARGUMENT
	// ErrIO: a file could not be opened, mapped or read.
	ErrIO Status = C.DWF_IO
	// ErrBadArtifact: the artifact's files are damaged, do not belong together, or are none.
	ErrBadArtifact Status = C.DWF_BAD_ARTIFACT
	// ErrUnsupported: a valid request that this build, device or format version cannot serve.
	ErrUnsupported Status = C.DWF_UNSUPPORTED
	// ErrRuntimeMissing: ONNX Runtime was not found, is too old, or lacks the provider.
	ErrRuntimeMissing Status = C.DWF_RUNTIME_MISSING
	// ErrOutOfMemory: memory could not be allocated.
	ErrOutOfMemory Status = C.DWF_OUT_OF_MEMORY
	// ErrBufferTooSmall: the output is smaller than the networks that were asked for.
	ErrBufferTooSmall Status = C.DWF_BUFFER_TOO_SMALL
	// ErrDiverged: a network became NaN or infinite; the text names it.
	ErrDiverged Status = C.DWF_DIVERGED
	// ErrCancelled: the context was done. The context's own error is wrapped beside it.
	ErrCancelled Status = C.DWF_CANCELLED
	// ErrBusy: the sampler is in use by another goroutine.
	ErrBusy Status = C.DWF_BUSY
	// ErrInternal: a bug in libdwf; what it happened on can only be closed.
	ErrInternal Status = C.DWF_INTERNAL
	// ErrRuntimeFailed: ONNX Runtime refused the velocity network or failed while running it.
	ErrRuntimeFailed Status = C.DWF_RUNTIME_FAILED
)

// ErrClosed: the Model or Sampler was closed before the call.
var ErrClosed = errors.New("dwf: use of a closed model or sampler")

// String is the status's name in C, "DWF_BUSY" say.
func (s Status) String() string { return C.GoString(C.dwf_status_name(C.dwf_status(s))) }

// Error makes a Status the target of errors.Is.
func (s Status) Error() string { return s.String() }

// Error is what calls return: what went wrong, where, and what to do.
type Error struct {
	Status  Status
	Message string
	cause   error // the context's error, if it cancelled the call
}

func (e *Error) Error() string { return "dwf: " + e.Message }

// Unwrap gives errors.Is the status and, for a cancelled call, the context's error.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Status}
	}
	return []error{e.Status, e.cause}
}

// cancelled is the error of a call that ctx ended, or kept from beginning.
func cancelled(ctx context.Context) error {
	return &Error{
		Status:  ErrCancelled,
		Message: "cancelled: " + context.Cause(ctx).Error(),
		cause:   ctx.Err(),
	}
}

func invalidArgument(format string, args ...any) error {
	return &Error{Status: ErrInvalidArgument, Message: fmt.Sprintf(format, args...)}
}

// errorText receives the text of a call that fails.
type errorText [1024]byte

func (t *errorText) ptr() *C.char   { return (*C.char)(unsafe.Pointer(t)) }
func (t *errorText) size() C.size_t { return C.size_t(len(t)) }

func (t *errorText) check(status C.dwf_status) error {
	if status == C.DWF_OK {
		return nil
	}
	return &Error{Status: Status(status), Message: C.GoString(t.ptr())}
}

// cString is s for C, nil if empty; the caller frees it.
func cString(name, s string) (*C.char, error) {
	if s == "" {
		return nil, nil
	}
	if strings.IndexByte(s, 0) >= 0 {
		return nil, invalidArgument("%s %q has a NUL in it", name, s)
	}
	return C.CString(s), nil
}
