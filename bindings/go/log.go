package dwf

// #include <dwf.h>
// void dwfGoLog(void *user, uint32_t level, char *message);
import "C"

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"unsafe"
)

var (
	loggerMutex sync.Mutex
	theLogger   atomic.Pointer[slog.Logger]
)

// SetLogger sends the messages of the library, process-wide, to logger, which decides what
// levels it takes; nil silences the library, which is the default. When SetLogger returns, the
// previous logger is not in use and will not be used again. The logger is called from any
// goroutine or thread, and must not call SetLogger.
func SetLogger(logger *slog.Logger) {
	loggerMutex.Lock()
	defer loggerMutex.Unlock()
	C.dwf_set_log(nil, nil, 0)
	theLogger.Store(logger)
	if logger != nil {
		C.dwf_set_log(C.dwf_log_callback(C.dwfGoLog), nil, C.DWF_LOG_DEBUG)
	}
}

//export dwfGoLog
func dwfGoLog(_ unsafe.Pointer, level C.uint32_t, message *C.char) {
	// A panic must not unwind C frames: it ends the program, as one in any goroutine does.
	defer func() {
		if p := recover(); p != nil {
			go panic(p)
		}
	}()
	theLogger.Load().Log(context.Background(), slogLevel(level), C.GoString(message))
}

func slogLevel(level C.uint32_t) slog.Level {
	switch level {
	case C.DWF_LOG_ERROR:
		return slog.LevelError
	case C.DWF_LOG_WARN:
		return slog.LevelWarn
	case C.DWF_LOG_INFO:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}
