package dwf

import (
	"runtime"
	"testing"
	"time"
)

func TestFinalizersFree(t *testing.T) {
	freed := make(chan struct{}, 2)
	func() {
		model, err := Open("../../tests/conformance/tiny.onnx")
		if err != nil {
			t.Fatal(err)
		}
		sampler, err := model.NewSampler(SamplerOptions{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		tellWhenFreed(&model.handle, freed)
		tellWhenFreed(&sampler.handle, freed)
	}()
	for range 2 {
		runtime.GC()
		select {
		case <-freed:
		case <-time.After(10 * time.Second):
			t.Fatal("not freed")
		}
	}
}

func tellWhenFreed[P comparable](h *handle[P], freed chan<- struct{}) {
	free := h.free
	h.free = func(p P) {
		free(p)
		freed <- struct{}{}
	}
}
