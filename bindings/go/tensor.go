package dwf

// #include <dwf.h>
import "C"

import "unsafe"

// Tensor is one tensor of the target network.
type Tensor struct {
	Name   string     // as in the checkpoint, "fc1.weight" say
	Shape  []int      // row-major; empty for a scalar
	Offset int        // first element in the flat vector
	Count  int        // number of elements
	DType  DType      // in the checkpoint; output has the type of the slice it goes to
	Kind   TensorKind // parameter or buffer
}

// Float16 holds the bits of an IEEE 754 binary16 number.
type Float16 uint16

// BFloat16 holds the bits of a bfloat16 number.
type BFloat16 uint16

// Element is a type that weights can be written in.
type Element interface {
	float32 | Float16 | BFloat16
}

// View is the tensor's part of a network's flat vector, not a copy.
func View[T Element](network []T, t Tensor) []T {
	return network[t.Offset : t.Offset+t.Count : t.Offset+t.Count]
}

func newTensor(t *C.dwf_tensor_info) Tensor {
	shape := make([]int, t.rank)
	for i, dim := range unsafe.Slice(t.shape, t.rank) {
		shape[i] = int(dim)
	}
	return Tensor{
		Name:   C.GoString(t.name),
		Shape:  shape,
		Offset: int(t.offset),
		Count:  int(t.count),
		DType:  DType(t.dtype),
		Kind:   TensorKind(t.kind),
	}
}

func dtypeOf[T Element]() DType {
	switch any(*new(T)).(type) {
	case Float16:
		return DTypeF16
	case BFloat16:
		return DTypeBF16
	default:
		return DTypeF32
	}
}
