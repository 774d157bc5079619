#!/usr/bin/env python3
"""libdwf against PyTorch on the same weights, in one run, on this machine's CPU or GPU.

usage: pytorch.py ARTIFACT.onnx LIBDWF.so [cuda]

ARTIFACT is one of the trainer's with a linear basis. PyTorch runs the reference's way: the
concatenation of state and time embedding, RK4 with 99 uniform intervals, one evaluation a call, then
the basis. That both compute the same velocity is checked first. On the CPU it runs eagerly; with
`cuda` also as a CUDA graph of the whole trajectory, and both sides write into GPU memory. Prints
the artifact's default solver with its evaluations and its error in this run, milliseconds a call,
and the ratios. Needs: pip install torch numpy safetensors onnxruntime.
`make bench-pytorch` installs them, trains a suitable artifact and runs this.
"""
import ctypes, statistics, sys, time
import numpy, onnxruntime, safetensors, torch
from torch.nn import functional as F

ERR = 512


class Struct(ctypes.Structure):
    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)), **fields)


P, I32, U32, U64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64
SIZE, F64 = ctypes.c_size_t, ctypes.c_double
SOLVERS = ["", "Euler", "midpoint", "Heun", "RK4", "Dormand-Prince"]
CUDA = 2


class ModelInfo(Struct):
    _fields_ = [("struct_size", SIZE), ("weight_count", U64), ("tensor_count", U64),
                ("latent_size", U64), ("condition_size", U64), ("steps", U64),
                ("evaluations", U64), ("solver_error", F64), ("source_std", F64), ("solver", U32),
                ("grid", U32)]


class SamplerOptions(Struct):
    _fields_ = [("struct_size", SIZE), ("onnxruntime", ctypes.c_char_p), ("device", U32),
                ("device_id", I32), ("threads", U32), ("max_batch", U32)]


class SampleOptions(Struct):
    _fields_ = [("struct_size", SIZE), ("seed", U64), ("first_index", U64), ("count", SIZE),
                ("solver", U32), ("grid", U32), ("steps", U64)]


class Buffer(Struct):
    _fields_ = [("struct_size", SIZE), ("data", P), ("size_bytes", SIZE), ("row_stride", SIZE),
                ("dtype", U32), ("device_type", U32), ("device_id", I32), ("reserved", U32)]


class Dwf:
    """The sampler through the C ABI."""

    def __init__(self, library, artifact, device):
        self.lib = ctypes.CDLL(library)
        self.err = ctypes.create_string_buffer(ERR)
        model, self.sampler, self.info = P(), P(), ModelInfo()
        options = SamplerOptions(device=CUDA if device == "cuda" else 1)
        self.call("dwf_model_open", artifact.encode(), None, ctypes.byref(model))
        self.call("dwf_model_get_info", model, ctypes.byref(self.info))
        self.call("dwf_sampler_new", model, ctypes.byref(options), ctypes.byref(self.sampler))

    def call(self, name, *args):
        if getattr(self.lib, name)(*args, self.err, SIZE(ERR)):
            sys.exit(f"{name}: {self.err.value.decode()}")

    def sample(self, out, **options):
        options = SampleOptions(seed=1, count=out.shape[0], **options)
        buffer = Buffer(data=out.data_ptr(), size_bytes=4 * out.numel(),
                        device_type=CUDA if out.is_cuda else 0)
        self.call("dwf_sample", self.sampler, ctypes.byref(options), ctypes.byref(buffer))


class Reference(torch.nn.Module):
    """The reference network with an artifact's weights, eager, float32."""

    def __init__(self, tensors):
        super().__init__()
        t = {name: torch.from_numpy(tensors.get_tensor(name).astype("float32"))
             for name in tensors.keys()}
        linear = lambda w, b: (w.T.contiguous(), b)
        self.time1 = linear(t["time1.weight"], t["time1.bias"])
        self.time2 = linear(t["time2.weight"], t["time2.bias"])
        # The concatenation [x, embedding], as the reference has it.
        self.input = linear(torch.cat([t["input.weight"], t["input_time.weight"]]),
                            t["input_time.bias"])
        self.hidden2 = linear(t["hidden2.weight"], t["hidden2.bias"])
        self.hidden3 = linear(t["hidden3.weight"], t["hidden3.bias"])
        self.output = linear(t["output.weight"], t["output.bias"])
        self.norms = [(t[f"norm{i}.weight"], t[f"norm{i}.bias"]) for i in (1, 2, 3)]
        self.mean, self.scale = t["basis.mean"], t["basis.scale"]
        self.components = t["basis.components"]

    def to(self, device):
        """Its tensors, which are no parameters, moved."""
        def moved(value):
            if torch.is_tensor(value):
                return value.to(device)
            return type(value)(map(moved, value)) if isinstance(value, (list, tuple)) else value
        for name, value in list(vars(self).items()):
            if not name.startswith("_"):
                setattr(self, name, moved(value))
        return self

    def velocity(self, x, t):
        time = F.linear(F.gelu(F.linear(t, *self.time1)), *self.time2)
        h = F.linear(torch.cat([x, time], dim=1), *self.input)
        for norm, layer in zip(self.norms, (self.hidden2, self.hidden3, self.output)):
            h = F.linear(F.gelu(F.layer_norm(h, norm[0].shape, *norm)), *layer)
        return h

    def sample(self, z, steps):
        grid = torch.linspace(0, 1, steps + 1, device=z.device)
        for t0, t1 in zip(grid[:-1], grid[1:]):
            step = t1 - t0
            at = lambda t: t.expand(len(z), 1)
            k1 = self.velocity(z, at(t0))
            k2 = self.velocity(z + step / 2 * k1, at(t0 + step / 2))
            k3 = self.velocity(z + step / 2 * k2, at(t0 + step / 2))
            k4 = self.velocity(z + step * k3, at(t1))
            z = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return (z * self.scale) @ self.components + self.mean


def check_same(artifact, reference, latent):
    """PyTorch's velocity is the artifact's, up to float32 rounding."""
    x, t = torch.randn(10, latent), torch.rand(10, 1)
    session = onnxruntime.InferenceSession(artifact)
    v = session.run(["v"], {"x": x.numpy(), "t": t.numpy()})[0]
    difference = numpy.abs(v - reference.velocity(x, t).numpy()).max()
    if not difference < 1e-4 * numpy.abs(v).max():
        sys.exit(f"PyTorch computes something else: velocities differ by {difference}")


def milliseconds(run):
    run()
    times = []
    while len(times) < 5 or (sum(times) < 4 and len(times) < 200):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def captured(reference, z):
    """The whole trajectory as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        reference.sample(z, 2)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        reference.sample(z, 99)
    return graph


def solver_error(dwf, weights, device):
    """The default solver's error against RK4 with 128 steps, relative over 32 networks."""
    fine, found = (torch.empty(32, weights, device=device) for _ in range(2))
    dwf.sample(fine, solver=4, steps=128, grid=1)
    dwf.sample(found)
    return float((found - fine).norm() / fine.norm())


@torch.inference_mode()
def main():
    artifact, library, device = (sys.argv[1:] + ["cpu"])[:3]
    dwf = Dwf(library, artifact, device)
    with safetensors.safe_open(artifact[: -len(".onnx")] + ".safetensors", "numpy") as tensors:
        reference = Reference(tensors)
    latent, weights = reference.components.shape
    check_same(artifact, reference, latent)
    reference.to(device)
    info = dwf.info
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"latent {latent}, h {len(reference.norms[0][0])}, {weights} weights; "
          f"torch {torch.__version__}, {where}")
    print(f"the artifact's solver: {SOLVERS[info.solver]} with {info.steps} steps, "
          f"{info.evaluations} evaluations; relative error {solver_error(dwf, weights, device):.1e} "
          f"in this run, {info.solver_error:.1e} by its trainer")

    def waited(run):
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    for count in (1, 100):
        z = torch.randn(count, latent, device=device)
        out = torch.empty(count, weights, device=device)
        rows = [("eager", milliseconds(lambda: waited(lambda: reference.sample(z, 99))))]
        if device == "cuda":
            graph = captured(reference, z)
            rows.append(("CUDA graph", milliseconds(lambda: waited(graph.replay))))
        equal = milliseconds(lambda: dwf.sample(out, solver=4, steps=99, grid=1))
        default = milliseconds(lambda: dwf.sample(out))
        for name, torch_time in rows:
            print(f"batch {count:3}: PyTorch {name} {torch_time:8.2f} ms | libdwf, equal "
                  f"evaluations {equal:7.2f} ms: {torch_time / equal:5.1f}x | its own solver "
                  f"{default:7.2f} ms: {torch_time / default:6.1f}x")


if __name__ == "__main__":
    main()
