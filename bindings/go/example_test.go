package dwf_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"libdwf/bindings/go"
)

func Example() {
	model, err := dwf.Open("../../tests/conformance/tiny.onnx")
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	sampler, err := model.NewSampler(dwf.SamplerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	const networks = 100
	size := model.Info().WeightCount
	weights := make([]float32, networks*size)
	options := dwf.SampleOptions{Seed: 1, Count: networks}
	if err := sampler.Sample(context.Background(), weights, options); err != nil {
		log.Fatal(err)
	}
	first := weights[:size]
	for _, tensor := range model.Tensors() {
		fmt.Println(tensor.Name, tensor.Shape, len(dwf.View(first, tensor)))
	}
	// Output:
	// fc1.weight [16 4] 64
	// fc1.bias [16] 16
	// norm.running_mean [16] 16
	// fc2.weight [3 16] 48
	// fc2.bias [3] 3
	// temperature [] 1
}

// A deadline ends a call; the error says that it did.
func ExampleSampler_Sample_deadline() {
	model, err := dwf.Open("../../tests/conformance/tiny.onnx")
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	sampler, err := model.NewSampler(dwf.SamplerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	weights := make([]float32, model.Info().WeightCount)
	err = sampler.Sample(ctx, weights, dwf.SampleOptions{Steps: 100_000})
	fmt.Println(errors.Is(err, dwf.ErrCancelled), errors.Is(err, context.DeadlineExceeded))
	// Output: true true
}

// Half-precision weights, a slice a tensor.
func ExampleSampler_SampleTo() {
	model, err := dwf.Open("../../tests/conformance/tiny.onnx")
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	sampler, err := model.NewSampler(dwf.SamplerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	network := make([][]dwf.Float16, len(model.Tensors()))
	for j, tensor := range model.Tensors() {
		network[j] = make([]dwf.Float16, tensor.Count)
	}
	to := dwf.Tensors([][][]dwf.Float16{network})
	if err := sampler.SampleTo(context.Background(), to, dwf.SampleOptions{Seed: 1}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(network), "tensors, the first with", len(network[0]), "weights")
	// Output: 6 tensors, the first with 64 weights
}
