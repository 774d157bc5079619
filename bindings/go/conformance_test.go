package dwf_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"libdwf/bindings/go"
)

const conformance = "../../tests/conformance"

// conformanceCase is a case of cases.json; the README beside it says what the fields mean.
type conformanceCase struct {
	Name     string
	Artifact string
	Op       string
	Options  struct {
		Seed          uint64
		FirstIndex    uint64 `json:"first_index"`
		Count         int
		Solver        dwf.Solver
		Grid          dwf.Grid
		Steps         int
		Tolerance     float64
		Condition     []float32
		ConditionRows int `json:"condition_rows"`
		Guidance      float64
	}
	Buffer struct {
		DType     string
		RowStride int  `json:"row_stride"`
		SizeBytes *int `json:"size_bytes"`
		Scatter   bool
	}
	CancelAt *uint64 `json:"cancel_at"`
	Untyped  bool    // Go can convert any number to a Solver or Grid, so it runs all cases
	Expect   struct {
		Status        string
		ErrorContains string `json:"error_contains"`
		Tolerance     *float64
		Values        map[string]float64
		Calls         *int
		Total         *uint64
		NestedStatus  string `json:"nested_status"`
		Info          map[string]any
		Tensors       []map[string]any
	}
}

// outcome is a line of $DWF_CONFORMANCE_OUT.
type outcome struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	SHA256 string `json:"sha256"`
}

func TestConformance(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(conformance, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Cases []conformanceCase }
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		t.Fatal(err)
	}
	if len(list.Cases) == 0 {
		t.Fatal("cases.json has no cases")
	}
	var lines []byte
	for _, c := range list.Cases {
		t.Run(c.Name, func(t *testing.T) {
			line, err := json.Marshal(c.run(t))
			if err != nil {
				t.Fatal(err)
			}
			lines = append(append(lines, line...), '\n')
		})
	}
	if path := os.Getenv("DWF_CONFORMANCE_OUT"); path != "" {
		if err := os.WriteFile(path, lines, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *conformanceCase) run(t *testing.T) outcome {
	model, err := dwf.Open(filepath.Join(conformance, c.Artifact))
	if err == nil {
		defer model.Close()
	}
	result := outcome{Name: c.Name}
	switch c.Op {
	case "open":
	case "info":
		c.checkInfo(t, model.Info())
	case "tensors":
		c.checkTensors(t, model.Tensors())
	case "sample", "cancel", "busy":
		result.SHA256, err = c.sample(t, model)
	default:
		t.Fatalf("unknown op %q", c.Op)
	}
	result.Status = statusName(err)
	if result.Status != c.Expect.Status {
		t.Errorf("status %s (%v), expected %s", result.Status, err, c.Expect.Status)
	}
	if err != nil && !strings.Contains(err.Error(), c.Expect.ErrorContains) {
		t.Errorf("error %q lacks %q", err, c.Expect.ErrorContains)
	}
	return result
}

func statusName(err error) string {
	if err == nil {
		return "DWF_OK"
	}
	var status dwf.Status
	if !errors.As(err, &status) {
		return err.Error()
	}
	return status.String()
}

func (c *conformanceCase) sample(t *testing.T, model *dwf.Model) (string, error) {
	sampler, err := model.NewSampler(dwf.SamplerOptions{Threads: 1, MaxBatch: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	switch c.Buffer.DType {
	case "", "f32":
		return sampleAs(t, c, model, sampler, 4, func(x float32) float64 { return float64(x) })
	case "f16":
		return sampleAs(t, c, model, sampler, 2, fromFloat16)
	case "bf16":
		return sampleAs(t, c, model, sampler, 2, fromBFloat16)
	default:
		t.Fatalf("unknown dtype %q", c.Buffer.DType)
		return "", nil
	}
}

func sampleAs[T dwf.Element](t *testing.T, c *conformanceCase, model *dwf.Model,
	sampler *dwf.Sampler, elementSize int, toFloat func(T) float64) (string, error) {
	out := newOutput[T](t, c, model, elementSize)
	err := c.call(t, sampler, out.buffer, newOutput[T](t, c, model, elementSize).buffer)
	for key, want := range c.Expect.Values {
		var row, column int
		if _, err := fmt.Sscanf(key, "%d,%d", &row, &column); err != nil {
			t.Fatal(err)
		}
		tolerance := 1e-4
		if c.Expect.Tolerance != nil {
			tolerance = *c.Expect.Tolerance
		}
		got := toFloat(out.at(row, column))
		if !(math.Abs(got-want) <= tolerance*math.Max(1, math.Abs(want))) {
			t.Errorf("value %s is %v, expected %v", key, got, want)
		}
	}
	return out.hash(t), err
}

// call samples into buffer; nested is for the sampling within a sampling.
func (c *conformanceCase) call(t *testing.T, sampler *dwf.Sampler, buffer, nested dwf.Buffer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	options := c.options(t, sampler)
	var calls int
	nestedStatus := ""
	report := func(done, total uint64) {
		calls++
		if c.Expect.Total != nil && total != *c.Expect.Total {
			t.Errorf("total %d, expected %d", total, *c.Expect.Total)
		}
		if c.CancelAt != nil && done == *c.CancelAt {
			cancel()
		}
		if c.Op == "busy" && done == 0 {
			nestedStatus = statusName(sampler.SampleTo(ctx, nested, c.options(t, sampler)))
		}
	}
	if c.Op != "sample" {
		options.Progress = report
	}
	err := sampler.SampleTo(ctx, buffer, options)
	if c.Expect.Calls != nil && calls != *c.Expect.Calls {
		t.Errorf("progress was called %d times, expected %d", calls, *c.Expect.Calls)
	}
	if nestedStatus != c.Expect.NestedStatus {
		t.Errorf("nested status %q, expected %q", nestedStatus, c.Expect.NestedStatus)
	}
	if errors.Is(err, dwf.ErrCancelled) != errors.Is(err, context.Canceled) {
		t.Errorf("%v is only one of ErrCancelled and context.Canceled", err)
	}
	return err
}

func (c *conformanceCase) options(t *testing.T, sampler *dwf.Sampler) dwf.SampleOptions {
	o := c.Options
	return dwf.SampleOptions{
		Seed: o.Seed, FirstIndex: o.FirstIndex, Count: o.Count,
		Solver: o.Solver, Grid: o.Grid, Steps: o.Steps, Tolerance: o.Tolerance,
		Condition: o.Condition, Guidance: o.Guidance,
	}
}

// output is memory as a case describes it: rows, or a slice a tensor.
type output[T dwf.Element] struct {
	buffer  dwf.Buffer
	rows    []T
	stride  int
	scatter [][][]T
	tensors []dwf.Tensor
}

func newOutput[T dwf.Element](t *testing.T, c *conformanceCase, model *dwf.Model, elementSize int) *output[T] {
	count, weights := max(c.Options.Count, 1), model.Info().WeightCount
	if c.Buffer.Scatter {
		scatter := make([][][]T, count)
		for i := range scatter {
			for _, tensor := range model.Tensors() {
				scatter[i] = append(scatter[i], filled[T](t, tensor.Count))
			}
		}
		return &output[T]{buffer: dwf.Tensors(scatter), scatter: scatter, tensors: model.Tensors()}
	}
	stride := c.Buffer.RowStride
	if stride == 0 {
		stride = weights
	}
	size := (count-1)*stride + weights
	if c.Buffer.SizeBytes != nil {
		size = *c.Buffer.SizeBytes / elementSize
	}
	rows := filled[T](t, size)
	return &output[T]{buffer: dwf.Rows(rows, c.Buffer.RowStride), rows: rows, stride: stride}
}

// filled is memory in which every byte is 0x55.
func filled[T dwf.Element](t *testing.T, count int) []T {
	s := make([]T, count)
	bytes := make([]byte, binary.Size(s))
	for i := range bytes {
		bytes[i] = 0x55
	}
	if err := binary.Read(strings.NewReader(string(bytes)), binary.NativeEndian, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (o *output[T]) at(row, column int) T {
	if o.scatter == nil {
		return o.rows[row*o.stride+column]
	}
	for j, tensor := range o.tensors {
		if column < tensor.Offset+tensor.Count {
			return o.scatter[row][j][column-tensor.Offset]
		}
	}
	panic("no such column")
}

func (o *output[T]) hash(t *testing.T) string {
	hash := sha256.New()
	write := func(s []T) {
		if err := binary.Write(hash, binary.NativeEndian, s); err != nil {
			t.Fatal(err)
		}
	}
	write(o.rows)
	for _, network := range o.scatter {
		for _, tensor := range network {
			write(tensor)
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func fromFloat16(h dwf.Float16) float64 {
	exponent, fraction := int(h>>10&31), float64(h&1023)/1024
	value := math.Ldexp(1+fraction, exponent-15)
	switch {
	case exponent == 31:
		return math.NaN() // or infinite: no case expects either
	case exponent == 0:
		value = math.Ldexp(fraction, -14)
	}
	if h>>15 != 0 {
		return -value
	}
	return value
}

func fromBFloat16(h dwf.BFloat16) float64 {
	return float64(math.Float32frombits(uint32(h) << 16))
}

func (c *conformanceCase) checkInfo(t *testing.T, info dwf.ModelInfo) {
	got := map[string]any{
		"weight_count": info.WeightCount, "tensor_count": info.TensorCount,
		"latent_size": info.LatentSize, "condition_size": info.ConditionSize,
		"steps": info.Steps, "evaluations": info.Evaluations,
		"solver_error": nil, "source_std": info.SourceStd,
		"solver": info.Solver, "grid": info.Grid, "basis": info.Basis, "unconditional": 0,
		"quality": info.Quality, "provenance": info.Provenance, "condition": nil,
		"condition_names": info.ConditionNames,
		"condition_min":   info.ConditionMin, "condition_max": info.ConditionMax,
	}
	if !math.IsNaN(info.SolverError) {
		got["solver_error"] = info.SolverError
	}
	if info.Unconditional {
		got["unconditional"] = 1
	}
	if info.Condition != "" {
		got["condition"] = info.Condition
	}
	checkFields(t, got, c.Expect.Info)
}

func (c *conformanceCase) checkTensors(t *testing.T, tensors []dwf.Tensor) {
	if len(tensors) != len(c.Expect.Tensors) {
		t.Fatalf("%d tensors, expected %d", len(tensors), len(c.Expect.Tensors))
	}
	for i, tensor := range tensors {
		checkFields(t, map[string]any{
			"name": tensor.Name, "shape": tensor.Shape, "offset": tensor.Offset,
			"count": tensor.Count, "dtype": tensor.DType, "kind": tensor.Kind,
		}, c.Expect.Tensors[i])
	}
}

// checkFields compares as JSON does: by what numbers and strings say, whatever their Go types.
func checkFields(t *testing.T, got, want map[string]any) {
	t.Helper()
	for _, m := range []*map[string]any{&got, &want} {
		text, err := json.Marshal(*m)
		if err != nil {
			t.Fatal(err)
		}
		*m = nil
		if err := json.Unmarshal(text, m); err != nil {
			t.Fatal(err)
		}
	}
	if len(want) == 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nexpected %v", got, want)
	}
}
