package dwf

import "sync"

// handle owns a pointer that C handed out. It is freed once, when it is closed and no call uses
// it any more: a Close or a finalizer that comes during a call cannot pull it away.
type handle[P comparable] struct {
	mu   sync.Mutex
	ptr  P
	free func(P)
	uses int
	open bool // not in the zero value, which is as good as a closed one
}

func newHandle[P comparable](ptr P, free func(P)) handle[P] {
	return handle[P]{ptr: ptr, free: free, open: true}
}

// acquire is paired with a deferred release, which also keeps what embeds the handle reachable
// during the call.
func (h *handle[P]) acquire() (P, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		var none P
		return none, ErrClosed
	}
	h.uses++
	return h.ptr, nil
}

func (h *handle[P]) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.uses--
	h.freeIfUnused()
}

// close reports whether the handle was open.
func (h *handle[P]) close() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		return false
	}
	h.open = false
	h.freeIfUnused()
	return true
}

func (h *handle[P]) freeIfUnused() {
	if !h.open && h.uses == 0 {
		h.free(h.ptr)
	}
}
