package dwf

// #include <dwf.h>
import "C"

import (
	"context"
	"runtime/cgo"
	"unsafe"
)

// watch is a call's progress callback and what stopped it.
type watch struct {
	ctx      context.Context
	progress func(done, total uint64)
	panicked any
}

//export dwfGoProgress
func dwfGoProgress(user unsafe.Pointer, done, total C.uint64_t) C.int32_t {
	w := (*(*cgo.Handle)(user)).Value().(*watch)
	if !w.goOn(uint64(done), uint64(total)) {
		return 1
	}
	return 0
}

// goOn keeps a panic from unwinding C frames; check raises it again behind them.
func (w *watch) goOn(done, total uint64) (ok bool) {
	defer func() { w.panicked = recover() }()
	if w.progress != nil {
		w.progress(done, total)
	}
	return w.ctx.Err() == nil
}

func (w *watch) check(err error) error {
	if w.panicked != nil {
		panic(w.panicked)
	}
	if e, ok := err.(*Error); ok && e.Status == ErrCancelled {
		return cancelled(w.ctx)
	}
	return err
}
