package dwf_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"libdwf/bindings/go"
)

var ctx = context.Background()

func open(t *testing.T, name string, options ...dwf.OpenOption) *dwf.Model {
	t.Helper()
	model, err := dwf.Open(filepath.Join(conformance, name), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { model.Close() })
	return model
}

func newSampler(t *testing.T, model *dwf.Model) *dwf.Sampler {
	t.Helper()
	sampler, err := model.NewSampler(dwf.SamplerOptions{Threads: 1, MaxBatch: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sampler.Close() })
	return sampler
}

func sample(t *testing.T, sampler *dwf.Sampler, weights int, options dwf.SampleOptions) []float32 {
	t.Helper()
	out := make([]float32, weights*max(options.Count, 1))
	if err := sampler.Sample(ctx, out, options); err != nil {
		t.Fatal(err)
	}
	return out
}

func expectStatus(t *testing.T, err error, want dwf.Status) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v is not %v", err, want)
	}
}

func TestSamplerInfo(t *testing.T) {
	info := newSampler(t, open(t, "tiny.onnx")).Info()
	if info.WeightCount != 148 || info.TensorCount != 6 || info.ConditionSize != 0 {
		t.Errorf("%+v", info)
	}
	if info.Threads != 1 || info.MaxBatch != 4 || info.Device != dwf.DeviceCPU ||
		info.WorkspaceBytes <= 0 || info.ONNXRuntimeVersion == "" || info.ONNXRuntimePath == "" {
		t.Errorf("%+v", info)
	}
	if dwf.Version() == "" {
		t.Error("no version")
	}
}

func TestViewIsThePartOfTheNetwork(t *testing.T) {
	model := open(t, "tiny.onnx")
	network := sample(t, newSampler(t, model), model.Info().WeightCount, dwf.SampleOptions{Seed: 3})
	bias, ok := model.Tensor("fc2.bias")
	if !ok {
		t.Fatal("no fc2.bias")
	}
	view := dwf.View(network, bias)
	if &view[0] != &network[bias.Offset] || len(view) != bias.Count || cap(view) != bias.Count {
		t.Errorf("view of %d at %p", len(view), &view[0])
	}
	if _, ok := model.Tensor("fc3.bias"); ok {
		t.Error("found a tensor that is not there")
	}
}

func TestBytesAreCopied(t *testing.T) {
	read := func(name string) []byte {
		bytes, err := os.ReadFile(filepath.Join(conformance, name))
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	onnx := read("tiny.onnx")
	// One byte in: libdwf must not depend on how a Go slice is aligned.
	sidecar := append([]byte{0}, read("tiny.safetensors")...)[1:]
	model, err := dwf.OpenBytes(onnx, sidecar, dwf.Verify)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	clear(onnx)
	clear(sidecar)
	weights := model.Info().WeightCount
	options := dwf.SampleOptions{Seed: 3, Count: 5}
	got := sample(t, newSampler(t, model), weights, options)
	want := sample(t, newSampler(t, open(t, "tiny.onnx")), weights, options)
	if !reflect.DeepEqual(got, want) {
		t.Error("differs from the artifact in files")
	}
	_, err = dwf.OpenBytes(nil, nil)
	expectStatus(t, err, dwf.ErrInvalidArgument)
}

func TestVerifyFindsDamage(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"tiny.onnx", "tiny.safetensors"} {
		bytes, err := os.ReadFile(filepath.Join(conformance, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "tiny.safetensors" {
			bytes[len(bytes)-1] ^= 1
		}
		if err := os.WriteFile(filepath.Join(dir, name), bytes, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "tiny.onnx")
	model, err := dwf.Open(path, dwf.Copy)
	if err != nil {
		t.Fatal(err)
	}
	model.Close()
	_, err = dwf.Open(path, dwf.Copy, dwf.Verify)
	expectStatus(t, err, dwf.ErrBadArtifact)
	_, err = dwf.Open(path, dwf.Copy, dwf.MemoryLimit(100))
	expectStatus(t, err, dwf.ErrOutOfMemory)
}

func TestArgumentsOfThisPackage(t *testing.T) {
	_, err := dwf.Open("tiny\x00.onnx")
	expectStatus(t, err, dwf.ErrInvalidArgument)
	_, err = dwf.Open("")
	expectStatus(t, err, dwf.ErrInvalidArgument)

	model := open(t, "conditional.onnx")
	_, err = model.NewSampler(dwf.SamplerOptions{ONNXRuntime: "a\x00b"})
	expectStatus(t, err, dwf.ErrInvalidArgument)
	for _, options := range []dwf.SamplerOptions{
		{Threads: -1}, {Threads: math.MaxUint32 + 2}, {MaxBatch: math.MinInt},
		{DeviceID: math.MaxUint32 + 1},
	} {
		_, err = model.NewSampler(options)
		expectStatus(t, err, dwf.ErrInvalidArgument)
	}

	sampler := newSampler(t, model)
	room := make([]float32, 2*model.Info().WeightCount)
	for _, options := range []dwf.SampleOptions{
		{Count: -1}, {Steps: -1}, {Condition: []float32{1, 0}},
	} {
		expectStatus(t, sampler.Sample(ctx, room, options), dwf.ErrInvalidArgument)
	}
	expectStatus(t, sampler.Sample(ctx, nil, dwf.SampleOptions{}), dwf.ErrInvalidArgument)
	expectStatus(t, sampler.SampleTo(ctx, dwf.Rows(room, -1), dwf.SampleOptions{}), dwf.ErrInvalidArgument)

	network := make([][]float32, len(model.Tensors()))
	for j, tensor := range model.Tensors() {
		network[j] = make([]float32, tensor.Count)
	}
	two := dwf.SampleOptions{Count: 2}
	scatter := func(networks ...[][]float32) error {
		return sampler.SampleTo(ctx, dwf.Tensors(networks), two)
	}
	expectStatus(t, scatter(network), dwf.ErrInvalidArgument)
	expectStatus(t, scatter(network, network[1:]), dwf.ErrInvalidArgument)
	short := append([][]float32{network[0][1:]}, network[1:]...)
	expectStatus(t, scatter(network, short), dwf.ErrBufferTooSmall)
	if err := scatter(network, network); err != nil {
		t.Error(err)
	}
}

func TestMemoryThatIsNotGos(t *testing.T) {
	model := open(t, "tiny.onnx")
	weights := model.Info().WeightCount
	mapped, err := syscall.Mmap(-1, 0, 4*weights, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mapped)
	sampler := newSampler(t, model)
	out := unsafe.Slice((*float32)(unsafe.Pointer(&mapped[0])), weights)
	if err := sampler.Sample(ctx, out, dwf.SampleOptions{Seed: 3}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(out, sample(t, sampler, weights, dwf.SampleOptions{Seed: 3})) {
		t.Error("differs from Go's memory")
	}
}

func TestContextEndsALongCall(t *testing.T) {
	model := open(t, "tiny.onnx")
	sampler := newSampler(t, model)
	limited, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	room := make([]float32, model.Info().WeightCount)
	start := time.Now()
	// Alone these steps take many seconds.
	err := sampler.Sample(limited, room, dwf.SampleOptions{Steps: 100_000})
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	expectStatus(t, err, dwf.ErrCancelled)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not DeadlineExceeded", err)
	}
	// And the sampler goes on.
	sample(t, sampler, len(room), dwf.SampleOptions{})
}

func TestDoneContextLeavesTheMemoryAlone(t *testing.T) {
	model := open(t, "tiny.onnx")
	sampler := newSampler(t, model)
	room := make([]float32, model.Info().WeightCount)
	late, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("the frame is over"))
	err := sampler.Sample(late, room, dwf.SampleOptions{})
	expectStatus(t, err, dwf.ErrCancelled)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the frame is over") {
		t.Errorf("%v does not say why", err)
	}
	for i, weight := range room {
		if weight != 0 {
			t.Fatalf("weight %d is %v", i, weight)
		}
	}
}

func TestPanicInProgressReachesTheCaller(t *testing.T) {
	model := open(t, "tiny.onnx")
	sampler := newSampler(t, model)
	weights := model.Info().WeightCount
	func() {
		defer func() {
			if p := recover(); p != "enough" {
				t.Errorf("recovered %v", p)
			}
		}()
		sampler.Sample(ctx, make([]float32, weights), dwf.SampleOptions{
			Progress: func(done, _ uint64) {
				if done == 3 {
					panic("enough")
				}
			},
		})
		t.Error("returned")
	}()
	sample(t, sampler, weights, dwf.SampleOptions{})
}

func TestCloseInAnyOrder(t *testing.T) {
	model := open(t, "tiny.onnx")
	sampler := newSampler(t, model)
	want := sample(t, sampler, model.Info().WeightCount, dwf.SampleOptions{Seed: 3})
	model.Close()
	model.Close()
	if _, err := model.NewSampler(dwf.SamplerOptions{}); !errors.Is(err, dwf.ErrClosed) {
		t.Errorf("%v is not ErrClosed", err)
	}
	room := make([]float32, len(want))
	err := sampler.Sample(ctx, room, dwf.SampleOptions{
		Seed:     3,
		Progress: func(uint64, uint64) { sampler.Close() },
	})
	if err != nil || !reflect.DeepEqual(room, want) {
		t.Errorf("closing a sampler in use: %v", err)
	}
	if err := sampler.Sample(ctx, room, dwf.SampleOptions{}); !errors.Is(err, dwf.ErrClosed) {
		t.Errorf("%v is not ErrClosed", err)
	}
}

func TestZeroValuesAreClosed(t *testing.T) {
	var values struct {
		_       int
		model   dwf.Model
		sampler dwf.Sampler
	}
	if _, err := values.model.NewSampler(dwf.SamplerOptions{}); !errors.Is(err, dwf.ErrClosed) {
		t.Errorf("%v is not ErrClosed", err)
	}
	if err := values.sampler.Sample(ctx, nil, dwf.SampleOptions{}); !errors.Is(err, dwf.ErrClosed) {
		t.Errorf("%v is not ErrClosed", err)
	}
	values.model.Close()
	values.sampler.Close()
}

// Nothing but the call itself refers to model and sampler while the collector runs within it.
func TestCollectorDuringCalls(t *testing.T) {
	model := open(t, "tiny.onnx")
	weights := model.Info().WeightCount
	options := dwf.SampleOptions{Seed: 7, Count: 3}
	want := sample(t, newSampler(t, model), weights, options)
	options.Progress = func(done, _ uint64) {
		if done%8 == 0 {
			runtime.GC()
			time.Sleep(time.Millisecond) // Finalizers have their own goroutine.
		}
	}
	var workers sync.WaitGroup
	for range 4 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for range 5 {
				got := make([]float32, len(want))
				if err := forgotten(t).Sample(ctx, got, options); err != nil {
					t.Error(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Error("the collector changed what was generated")
				}
			}
		}()
	}
	workers.Wait()
}

// forgotten is a sampler that nobody closes, over a model that nobody closes.
func forgotten(t *testing.T) *dwf.Sampler {
	model, err := dwf.Open(filepath.Join(conformance, "tiny.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	sampler, err := model.NewSampler(dwf.SamplerOptions{Threads: 1, MaxBatch: 4})
	if err != nil {
		t.Fatal(err)
	}
	return sampler
}

func TestSamplersSideBySide(t *testing.T) {
	model := open(t, "tiny.onnx")
	weights := model.Info().WeightCount
	want := sample(t, newSampler(t, model), weights, dwf.SampleOptions{Count: 8})
	var workers sync.WaitGroup
	for w := range 4 {
		sampler := newSampler(t, model)
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range 8 {
				got := make([]float32, weights)
				if err := sampler.Sample(ctx, got, dwf.SampleOptions{FirstIndex: uint64(i)}); err != nil {
					t.Error(err)
					return
				}
				for j, x := range want[i*weights : (i+1)*weights] {
					if math.Abs(float64(got[j]-x)) > 1e-4 {
						t.Errorf("worker %d, network %d, weight %d: %v, expected %v", w, i, j, got[j], x)
						return
					}
				}
			}
		}()
	}
	workers.Wait()
}

func TestLogger(t *testing.T) {
	var text strings.Builder
	dwf.SetLogger(slog.New(slog.NewTextHandler(&text, nil)))
	defer dwf.SetLogger(nil)
	model := open(t, "tiny.onnx")
	newSampler(t, model)
	if !strings.Contains(text.String(), "level=INFO") {
		t.Errorf("logged %q", text.String())
	}
	dwf.SetLogger(nil)
	before := text.Len()
	newSampler(t, model)
	if text.Len() != before {
		t.Error("logs after SetLogger(nil)")
	}
}
