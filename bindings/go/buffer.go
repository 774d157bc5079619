package dwf

// #include <dwf.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// Buffer is the caller's memory for generated networks; see [Rows] and [Tensors].
type Buffer struct {
	dtype   DType
	data    unsafe.Pointer
	bytes   int
	stride  int
	tensors [][]region // by network, then tensor; nil if data is used
}

type region struct {
	data  unsafe.Pointer
	bytes int
}

// Rows is memory for networks one after the other: the weights of network i begin i*stride
// elements in. Stride 0 puts them end to end.
func Rows[T Element](data []T, stride int) Buffer {
	r := newRegion(data)
	return Buffer{dtype: dtypeOf[T](), data: r.data, bytes: r.bytes, stride: stride}
}

// Tensors is memory for networks with a slice for each tensor: tensor j of network i goes to
// networks[i][j], in the order of [Model.Tensors].
func Tensors[T Element](networks [][][]T) Buffer {
	b := Buffer{dtype: dtypeOf[T](), tensors: make([][]region, len(networks))}
	for i, network := range networks {
		b.tensors[i] = make([]region, len(network))
		for j, tensor := range network {
			b.tensors[i][j] = newRegion(tensor)
		}
	}
	return b
}

func newRegion[T Element](s []T) region {
	return region{unsafe.Pointer(unsafe.SliceData(s)), len(s) * int(unsafe.Sizeof(*new(T)))}
}

// forC pins the memory that the C struct points to.
func (b *Buffer) forC(count, tensorCount int, pinner *runtime.Pinner) (C.dwf_buffer, error) {
	if b.stride < 0 {
		return C.dwf_buffer{}, invalidArgument("a row stride of %d elements", b.stride)
	}
	c := C.dwf_buffer{
		struct_size: C.sizeof_dwf_buffer,
		size_bytes:  C.size_t(b.bytes),
		row_stride:  C.size_t(b.stride),
		dtype:       C.uint32_t(b.dtype),
	}
	if b.tensors == nil {
		c.data = pin(pinner, b.data)
		return c, nil
	}
	err := b.scatter(&c, count, tensorCount, pinner)
	return c, err
}

func (b *Buffer) scatter(c *C.dwf_buffer, count, tensorCount int, pinner *runtime.Pinner) error {
	if len(b.tensors) != count {
		return invalidArgument("memory for %d networks, but Count is %d", len(b.tensors), count)
	}
	pointers := make([]unsafe.Pointer, 0, count*tensorCount)
	sizes := make([]C.size_t, tensorCount)
	for i, network := range b.tensors {
		if len(network) != tensorCount {
			return invalidArgument("network %d has %d slices; the artifact has %d tensors",
				i, len(network), tensorCount)
		}
		for j, r := range network {
			pointers = append(pointers, pin(pinner, r.data))
			// C takes one size a tensor: the least of all networks.
			if size := C.size_t(r.bytes); i == 0 || size < sizes[j] {
				sizes[j] = size
			}
		}
	}
	c.tensor_count = C.size_t(tensorCount)
	c.tensors = (*unsafe.Pointer)(pin(pinner, unsafe.Pointer(unsafe.SliceData(pointers))))
	c.tensor_sizes = (*C.size_t)(pin(pinner, unsafe.Pointer(unsafe.SliceData(sizes))))
	return nil
}

func pin(pinner *runtime.Pinner, p unsafe.Pointer) unsafe.Pointer {
	if p != nil {
		pinner.Pin(p)
	}
	return p
}
