package dwf

// #include <stdlib.h>
// #include <dwf.h>
import "C"

import (
	"runtime"
	"slices"
	"unsafe"
)

// Model is an opened artifact: immutable, shared by all goroutines.
type Model struct {
	handle  handle[*C.dwf_model]
	info    ModelInfo
	tensors []Tensor
}

// OpenOption changes how an artifact is opened.
type OpenOption struct {
	copy, verify bool
	memoryLimit  uint64
}

var (
	// Copy reads the sidecar into memory instead of mapping it. A mapped file that another
	// process truncates kills this process at the next access; a copy does not care.
	Copy = OpenOption{copy: true}
	// Verify compares the sidecar with the SHA-256 that the artifact carries; reads all of it.
	Verify = OpenOption{verify: true}
)

// MemoryLimit bounds the bytes that [Copy] may take; it is 4 GiB otherwise.
func MemoryLimit(bytes uint64) OpenOption { return OpenOption{memoryLimit: bytes} }

// ModelInfo is what an artifact says about itself.
type ModelInfo struct {
	WeightCount   int     // weights of one network: elements of its flat vector
	TensorCount   int     // tensors of one network
	LatentSize    int     // length of a latent vector
	ConditionSize int     // length of a condition vector; 0: the artifact takes none
	Steps         int     // steps of the default solver
	Evaluations   int     // evaluations of the default solver; 0: each network's own
	SolverError   float64 // relative error of the default solver's weights; NaN: not measured
	SourceStd     float64 // standard deviation of the source noise
	Solver        Solver  // default solver
	Grid          Grid    // default grid
	Basis         Basis
	Unconditional bool   // can be sampled without condition, and so with guidance
	Quality       string // JSON object of the trainer's figures by name
	Provenance    string // JSON object: who made the artifact from what
	Condition     string // JSON of the condition's classes or axes; empty without condition

	ConditionNames []string  // what a condition's columns are called: classes, or continuous axes
	ConditionMin   []float32 // smallest value of every axis; nil for classes, whose row is one-hot
	ConditionMax   []float32 // largest value of every axis; nil for classes
}

// Open opens the artifact path (name.onnx) and maps the sidecar beside it.
//
// Errors: [ErrIO], [ErrBadArtifact], [ErrUnsupported], [ErrInvalidArgument], [ErrOutOfMemory].
func Open(path string, options ...OpenOption) (*Model, error) {
	name, err := cString("path", path)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(name))
	opts := modelOptions(options)
	var ptr *C.dwf_model
	var text errorText
	if err := text.check(C.dwf_model_open(name, &opts, &ptr, text.ptr(), text.size())); err != nil {
		return nil, err
	}
	return newModel(ptr)
}

// OpenBytes opens an artifact in memory: the bytes of its .onnx and of its sidecar. Both are
// copied, whatever their size; to map a large sidecar, use [Open].
//
// Errors: as [Open].
func OpenBytes(onnx, sidecar []byte, options ...OpenOption) (*Model, error) {
	opts := modelOptions(options)
	opts.copy = 1
	opts.memory_limit = C.uint64_t(max(len(sidecar), 1))
	var ptr *C.dwf_model
	var text errorText
	status := C.dwf_model_open_memory(
		unsafe.Pointer(unsafe.SliceData(onnx)), C.size_t(len(onnx)),
		unsafe.Pointer(unsafe.SliceData(sidecar)), C.size_t(len(sidecar)),
		&opts, &ptr, text.ptr(), text.size())
	if err := text.check(status); err != nil {
		return nil, err
	}
	return newModel(ptr)
}

func modelOptions(options []OpenOption) C.dwf_model_options {
	opts := C.dwf_model_options{struct_size: C.sizeof_dwf_model_options}
	for _, option := range options {
		if option.copy {
			opts.copy = 1
		}
		if option.verify {
			opts.verify = 1
		}
		if option.memoryLimit != 0 {
			opts.memory_limit = C.uint64_t(option.memoryLimit)
		}
	}
	return opts
}

func newModel(ptr *C.dwf_model) (*Model, error) {
	m := &Model{handle: newHandle(ptr, func(p *C.dwf_model) { C.dwf_model_free(p) })}
	runtime.SetFinalizer(m, (*Model).Close)
	if err := m.describe(ptr); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// describe copies what the artifact says, so that it outlives Close.
func (m *Model) describe(ptr *C.dwf_model) error {
	defer runtime.KeepAlive(m)
	info := C.dwf_model_info{struct_size: C.sizeof_dwf_model_info}
	var text errorText
	if err := text.check(C.dwf_model_get_info(ptr, &info, text.ptr(), text.size())); err != nil {
		return err
	}
	m.info = ModelInfo{
		WeightCount:   int(info.weight_count),
		TensorCount:   int(info.tensor_count),
		LatentSize:    int(info.latent_size),
		ConditionSize: int(info.condition_size),
		Steps:         int(info.steps),
		Evaluations:   int(info.evaluations),
		SolverError:   float64(info.solver_error),
		SourceStd:     float64(info.source_std),
		Solver:        Solver(info.solver),
		Grid:          Grid(info.grid),
		Basis:         Basis(info.basis),
		Unconditional: info.unconditional != 0,
		Quality:       C.GoString(info.quality),
		Provenance:    C.GoString(info.provenance),
		Condition:     C.GoString(info.condition),
		ConditionMin:  floats(info.condition_min, info.condition_size),
		ConditionMax:  floats(info.condition_max, info.condition_size),
	}
	if info.condition_names != nil {
		for _, name := range unsafe.Slice(info.condition_names, info.condition_size) {
			m.info.ConditionNames = append(m.info.ConditionNames, C.GoString(name))
		}
	}
	m.tensors = make([]Tensor, m.info.TensorCount)
	for i := range m.tensors {
		t := C.dwf_tensor_info{struct_size: C.sizeof_dwf_tensor_info}
		status := C.dwf_model_get_tensor(ptr, C.size_t(i), &t, text.ptr(), text.size())
		if err := text.check(status); err != nil {
			return err
		}
		m.tensors[i] = newTensor(&t)
	}
	return nil
}

// floats copies C's numbers; nil for NULL.
func floats(c *C.float, count C.uint64_t) []float32 {
	if c == nil {
		return nil
	}
	return slices.Clone(unsafe.Slice((*float32)(unsafe.Pointer(c)), count))
}

// Info is what the artifact says about itself. It stays known after Close.
func (m *Model) Info() ModelInfo { return m.info }

// Tensors are the tensors of one network, in the order of their offsets. The slice is shared:
// it is not to be changed. It stays known after Close.
func (m *Model) Tensors() []Tensor { return m.tensors }

// Tensor finds a tensor by its name.
func (m *Model) Tensor(name string) (Tensor, bool) {
	for _, t := range m.tensors {
		if t.Name == name {
			return t, true
		}
	}
	return Tensor{}, false
}

// Close frees the artifact. Samplers made from it go on working. It never fails.
func (m *Model) Close() error {
	if m.handle.close() {
		runtime.SetFinalizer(m, nil)
	}
	return nil
}
