// Package dwf samples whole neural networks from a trained flow over weights: complete, working
// networks that nobody trained, written into the program's own slices.
//
// An artifact, name.onnx with name.safetensors beside it, is opened as a [Model]; a [Sampler]
// made from it generates networks:
//
//	model, err := dwf.Open("iris.onnx")
//	if err != nil {
//		return err
//	}
//	defer model.Close()
//	sampler, err := model.NewSampler(dwf.SamplerOptions{})
//	if err != nil {
//		return err
//	}
//	defer sampler.Close()
//	weights := make([]float32, 100*model.Info().WeightCount)
//	err = sampler.Sample(ctx, weights, dwf.SampleOptions{Seed: 1, Count: 100})
//
// # Ownership
//
// Close frees at once what a Model or Sampler holds; the garbage collector does so later for what
// was not closed. They may be closed in any order, more than once, and while calls are under way,
// which then finish. Slices handed to a call are used during that call only.
//
// # Goroutines
//
// A Model is immutable and shared by all goroutines. A Sampler serves one goroutine at a time;
// overlapping calls return [ErrBusy]. Make a Sampler a worker.
//
// # Determinism
//
// Network i of a call depends on (Seed, FirstIndex + i) alone: bit-identical for one build,
// device and batch size, and to about 1e-5 relative otherwise.
//
// # ONNX Runtime
//
// It is loaded when the first Sampler is made: from [SamplerOptions].ONNXRuntime, else
// $DWF_ONNXRUNTIME, else beside libdwf, else from the system's library path.
package dwf

// #cgo pkg-config: dwf
// #include <dwf.h>
import "C"

// Version is the version of libdwf, "0.1.0" say.
func Version() string { return C.GoString(C.dwf_version()) }

// DType is the element type of a tensor.
type DType uint32

const (
	DTypeF32  DType = C.DWF_DTYPE_F32  // IEEE 754 binary32
	DTypeF16  DType = C.DWF_DTYPE_F16  // IEEE 754 binary16
	DTypeBF16 DType = C.DWF_DTYPE_BF16 // bfloat16
)

// Device is where networks are generated.
type Device uint32

const (
	DeviceAuto Device = C.DWF_DEVICE_AUTO // the best that works
	DeviceCPU  Device = C.DWF_DEVICE_CPU  // the processor
	DeviceCUDA Device = C.DWF_DEVICE_CUDA // an NVIDIA GPU
)

// Solver integrates the flow from noise to weights. Zero is the artifact's own.
type Solver uint32

const (
	SolverEuler    Solver = C.DWF_SOLVER_EULER    // 1 evaluation a step
	SolverMidpoint Solver = C.DWF_SOLVER_MIDPOINT // explicit midpoint, 2 evaluations a step
	SolverHeun     Solver = C.DWF_SOLVER_HEUN     // 2 evaluations a step
	SolverRK4      Solver = C.DWF_SOLVER_RK4      // classical Runge-Kutta, 4 evaluations a step
	SolverDopri5   Solver = C.DWF_SOLVER_DOPRI5   // Dormand-Prince 5(4), adaptive
)

// Grid spaces a solver's steps. Zero is the artifact's own.
type Grid uint32

const (
	GridUniform   Grid = C.DWF_GRID_UNIFORM   // equal steps in time
	GridStretched Grid = C.DWF_GRID_STRETCHED // steps that grow with time, for a narrow source
)

// Basis turns a latent vector into weights.
type Basis uint32

const (
	BasisIdentity Basis = C.DWF_BASIS_IDENTITY // weights = latent
	BasisDiagonal Basis = C.DWF_BASIS_DIAGONAL // weights = mean + scale * latent
	BasisLinear   Basis = C.DWF_BASIS_LINEAR   // weights = mean + (scale * latent) components
)

// TensorKind tells what a network does with a tensor.
type TensorKind uint32

const (
	TensorParameter TensorKind = C.DWF_TENSOR_PARAMETER // trained by gradient
	TensorBuffer    TensorKind = C.DWF_TENSOR_BUFFER    // kept by the network, a running mean say
)
