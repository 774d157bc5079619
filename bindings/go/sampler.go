package dwf

// #include <stdlib.h>
// #include <dwf.h>
// int32_t dwfGoProgress(void *user, uint64_t done, uint64_t total);
import "C"

import (
	"context"
	"math"
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Sampler generates networks from a Model: one session and its workspace, for one goroutine at
// a time. It keeps what it needs of the Model.
type Sampler struct {
	handle handle[*C.dwf_sampler]
	info   SamplerInfo
}

// SamplerOptions say how to make a sampler. Zero means default.
type SamplerOptions struct {
	ONNXRuntime string // path of ONNX Runtime's shared library; empty: searched for
	Device      Device // asking for CUDA where it does not work is an error
	DeviceID    int    // which GPU
	Threads     int    // 0: one a core
	MaxBatch    int    // most networks generated at a time; bounds the workspace. 0: 64 a thread
	MemoryLimit uint64 // most bytes it may take, with ONNX Runtime's part; 0: 4 GiB
	// GPUMemoryLimit bounds its own buffers on a GPU; a basis that does not fit is streamed with
	// every batch. 0: half of what is free.
	GPUMemoryLimit uint64
}

// SamplerInfo is what a sampler chose and holds.
type SamplerInfo struct {
	WorkspaceBytes     int64 // beyond ONNX Runtime's own
	Device             Device
	DeviceID           int
	Threads            int
	MaxBatch           int
	ONNXRuntimeVersion string // "1.31.1" say
	ONNXRuntimePath    string // where it was loaded from
	WeightCount        int    // as in ModelInfo, for code that has only the sampler at hand
	TensorCount        int    // as in ModelInfo
	ConditionSize      int    // as in ModelInfo
	Provider           string // ONNX Runtime's provider, "CUDAExecutionProvider" say
	GPUBytes           int64  // of GPU memory, beyond ONNX Runtime's own
	Evaluations        int    // of the velocity network, unless a call names a solver; 0: each network's own
	Solver             Solver // of such a call
	BasisStreamed      bool   // whether the basis goes to the GPU with every batch
}

// SampleOptions say what to generate. Zero means default.
type SampleOptions struct {
	Seed       uint64  // any number, 0 too; with the index it determines a network's noise
	FirstIndex uint64  // index of the first network
	Count      int     // how many networks; 0: 1
	Solver     Solver  // 0: the artifact's
	Grid       Grid    // 0: the artifact's
	Steps      int     // steps on the grid; 0: the artifact's
	Tolerance  float64 // error a step of SolverDopri5, 1e-6 to 0.1; 0: the artifact's, or 1e-4
	// Condition is one row of ModelInfo.ConditionSize numbers for all networks, or Count rows,
	// one a network. Empty: unconditional.
	Condition []float32
	Guidance  float64 // classifier-free guidance scale; 0 or 1: the condition alone
	// Progress is told how many of total evaluations of the velocity network have begun, always
	// on the calling goroutine: before each one that its thread makes and, while that waits for
	// the sampler's other threads, whenever one of them has begun one. total is 0 where an
	// adaptive solver finds out on the way. A panic in it ends the call and goes on in the caller. runtime.Goexit, and
	// so the FailNow of a test, would leave the sampler busy for good.
	Progress func(done, total uint64)
}

// NewSampler makes a sampler: it finds ONNX Runtime, loads the velocity network and allocates
// the workspace.
//
// Errors: [ErrRuntimeMissing], [ErrRuntimeFailed], [ErrInvalidArgument], [ErrUnsupported],
// [ErrOutOfMemory], [ErrClosed].
func (m *Model) NewSampler(options SamplerOptions) (*Sampler, error) {
	model, err := m.handle.acquire()
	if err != nil {
		return nil, err
	}
	defer m.handle.release()
	opts := C.dwf_sampler_options{
		struct_size:  C.sizeof_dwf_sampler_options,
		device:       C.uint32_t(options.Device),
		device_id:    C.int32_t(options.DeviceID),
		threads:      number(options.Threads),
		max_batch:    number(options.MaxBatch),
		memory_limit: C.uint64_t(options.MemoryLimit),

		gpu_memory_limit: C.uint64_t(options.GPUMemoryLimit),
	}
	if int(opts.device_id) != options.DeviceID {
		return nil, invalidArgument("there is no device %d", options.DeviceID)
	}
	if opts.onnxruntime, err = cString("ONNXRuntime", options.ONNXRuntime); err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(opts.onnxruntime))
	var ptr *C.dwf_sampler
	var text errorText
	status := C.dwf_sampler_new(model, &opts, &ptr, text.ptr(), text.size())
	if err := text.check(status); err != nil {
		return nil, err
	}
	return newSampler(ptr)
}

func newSampler(ptr *C.dwf_sampler) (*Sampler, error) {
	s := &Sampler{handle: newHandle(ptr, func(p *C.dwf_sampler) { C.dwf_sampler_free(p) })}
	runtime.SetFinalizer(s, (*Sampler).Close)
	defer runtime.KeepAlive(s)
	info := C.dwf_sampler_info{struct_size: C.sizeof_dwf_sampler_info}
	var text errorText
	status := C.dwf_sampler_get_info(ptr, &info, text.ptr(), text.size())
	if err := text.check(status); err != nil {
		s.Close()
		return nil, err
	}
	s.info = SamplerInfo{
		WorkspaceBytes:     int64(info.workspace_bytes),
		Device:             Device(info.device),
		DeviceID:           int(info.device_id),
		Threads:            int(info.threads),
		MaxBatch:           int(info.max_batch),
		ONNXRuntimeVersion: C.GoString(info.onnxruntime_version),
		ONNXRuntimePath:    C.GoString(info.onnxruntime_path),
		WeightCount:        int(info.weight_count),
		TensorCount:        int(info.tensor_count),
		ConditionSize:      int(info.condition_size),
		Provider:           C.GoString(info.provider),
		GPUBytes:           int64(info.gpu_bytes),
		Evaluations:        int(info.evaluations),
		Solver:             Solver(info.solver),
		BasisStreamed:      info.basis_streamed != 0,
	}
	return s, nil
}

// Info is what the sampler chose and holds.
func (s *Sampler) Info() SamplerInfo { return s.info }

// Sample generates options.Count networks into weights, one after the other: network i begins at
// i*ModelInfo.WeightCount. It returns soon after ctx is done, with an error that is both
// [ErrCancelled] and ctx.Err().
//
// Nothing is written before all arguments are checked, nor if ctx is done already. If the call
// fails after that, every weight of the networks it had written is NaN.
//
// Errors: [ErrInvalidArgument], [ErrBufferTooSmall], [ErrDiverged], [ErrCancelled], [ErrBusy],
// [ErrRuntimeFailed], [ErrInternal], [ErrClosed].
func (s *Sampler) Sample(ctx context.Context, weights []float32, options SampleOptions) error {
	return s.SampleTo(ctx, Rows(weights, 0), options)
}

// SampleTo is [Sampler.Sample] into any [Buffer]: halves, rows with a stride, or a slice a
// tensor.
func (s *Sampler) SampleTo(ctx context.Context, to Buffer, options SampleOptions) error {
	sampler, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	opts, err := s.options(&options, &pinner)
	if err != nil {
		return err
	}
	buffer, err := to.forC(int(opts.count), s.info.TensorCount, &pinner)
	if err != nil {
		return err
	}
	watch := watch{ctx: ctx, progress: options.Progress}
	if ctx.Done() != nil || options.Progress != nil {
		user := cgo.NewHandle(&watch)
		defer user.Delete()
		opts.progress = C.dwf_progress_callback(C.dwfGoProgress)
		opts.progress_user = pin(&pinner, unsafe.Pointer(&user))
	}
	var text errorText
	status := C.dwf_sample(sampler, &opts, &buffer, text.ptr(), text.size())
	return watch.check(text.check(status))
}

func (s *Sampler) options(o *SampleOptions, pinner *runtime.Pinner) (C.dwf_sample_options, error) {
	if o.Count < 0 || o.Steps < 0 {
		return C.dwf_sample_options{}, invalidArgument("Count %d and Steps %d must not be negative",
			o.Count, o.Steps)
	}
	// Without conditions, libdwf itself says that the artifact takes none.
	size := max(s.info.ConditionSize, 1)
	if len(o.Condition)%size != 0 {
		return C.dwf_sample_options{}, invalidArgument(
			"Condition has %d values, which is not a number of rows of %d", len(o.Condition), size)
	}
	c := C.dwf_sample_options{
		struct_size:    C.sizeof_dwf_sample_options,
		seed:           C.uint64_t(o.Seed),
		first_index:    C.uint64_t(o.FirstIndex),
		count:          C.size_t(max(o.Count, 1)),
		solver:         C.uint32_t(o.Solver),
		grid:           C.uint32_t(o.Grid),
		steps:          C.uint64_t(o.Steps),
		tolerance:      C.double(o.Tolerance),
		condition_rows: C.size_t(len(o.Condition) / size),
		guidance:       C.double(o.Guidance),
	}
	if len(o.Condition) > 0 {
		c.condition = (*C.float)(pin(pinner, unsafe.Pointer(unsafe.SliceData(o.Condition))))
	}
	return c, nil
}

// number is n in C. What C has no room for becomes the largest, which libdwf refuses in words.
func number(n int) C.uint32_t {
	if uint64(n) > math.MaxUint32 {
		return math.MaxUint32
	}
	return C.uint32_t(n)
}

// Close frees the sampler. It never fails.
func (s *Sampler) Close() error {
	if s.handle.close() {
		runtime.SetFinalizer(s, nil)
	}
	return nil
}
