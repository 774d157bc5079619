"""Alignment of ResNet-18 zoos: `dwf align` against weight matching in PyTorch and SciPy.

    PYTHONPATH=... python3 benches/alignment.py target/release/dwf [NETWORKS] [COMPARED]

Needs torch, torchvision, scipy, safetensors. Makes NETWORKS (default 100) checkpoints of torchvision's
ResNet-18, 11.7 million parameters each, and aligns them with `dwf align`: reading, matching,
verifying in ONNX Runtime and writing. PyTorch matches COMPARED (default 3) of them, nothing else,
by the algorithm of Git Re-Basin (Ainsworth et al., arXiv 2209.04836, algorithm 1): sweeps over the
permutations in random order, each an inner product of permuted tensors and a linear assignment,
until a sweep changes nothing; its time is extrapolated. Then assignments of 3072 units, by SciPy
and by ours.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy
import torch
import torchvision
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment

HERE = pathlib.Path(__file__).resolve().parent
NETWORK = HERE.parent / "trainer/tests/networks/resnet18.onnx"


def specification():
    """For each permutation the (tensor, axis) pairs that it moves, written by hand."""
    groups = {}

    def add(group, *places):
        groups.setdefault(group, []).extend(places)

    def norm(group, name):
        for part in ["weight", "bias", "running_mean", "running_var"]:
            add(group, (f"{name}.{part}", 0))

    add("stream1", ("conv1.weight", 0))
    norm("stream1", "bn1")
    before = "stream1"
    for layer in range(1, 5):
        stream = f"stream{layer}"
        for block in range(2):
            name = f"layer{layer}.{block}"
            inner = f"{name}.inner"
            add(before, (f"{name}.conv1.weight", 1))
            add(inner, (f"{name}.conv1.weight", 0), (f"{name}.conv2.weight", 1))
            norm(inner, f"{name}.bn1")
            add(stream, (f"{name}.conv2.weight", 0))
            norm(stream, f"{name}.bn2")
            if layer > 1 and block == 0:
                add(before, (f"{name}.downsample.0.weight", 1))
                add(stream, (f"{name}.downsample.0.weight", 0))
                norm(stream, f"{name}.downsample.1")
            before = stream
    add("stream4", ("fc.weight", 1))
    return groups


def permuted(tensor, name, axes, permutations, without):
    for axis, group in axes[name]:
        if axis != without:
            tensor = tensor.index_select(axis, permutations[group])
    return tensor


def match(reference, network, groups, generator):
    axes = {}
    for group, places in groups.items():
        for name, axis in places:
            axes.setdefault(name, []).append((axis, group))
    sizes = {group: reference[places[0][0]].shape[places[0][1]] for group, places in groups.items()}
    permutations = {group: torch.arange(size) for group, size in sizes.items()}
    names = list(groups)
    sweeps = 0
    while True:
        changed = False
        sweeps += 1
        for index in torch.randperm(len(names), generator=generator).tolist():
            group = names[index]
            size = sizes[group]
            gains = torch.zeros(size, size)
            for name, axis in groups[group]:
                a = reference[name]
                b = permuted(network[name], name, axes, permutations, axis)
                a = a.moveaxis(axis, 0).reshape(size, -1)
                b = b.moveaxis(axis, 0).reshape(size, -1)
                gains += a @ b.T
            rows, columns = linear_sum_assignment(gains.numpy(), maximize=True)
            old = gains[torch.arange(size), permutations[group]].sum()
            new = gains[torch.from_numpy(rows), torch.from_numpy(columns)].sum()
            if new > old + 1e-6 * gains.abs().max() * size:
                permutations[group] = torch.from_numpy(columns)
                changed = True
        if not changed:
            return permutations, sweeps


def distance(reference, network, groups, permutations):
    axes = {}
    for group, places in groups.items():
        for name, axis in places:
            axes.setdefault(name, []).append((axis, group))
    total = 0.0
    for name, a in reference.items():
        if "running" not in name:
            b = permuted(network[name], name, axes, permutations, None) if name in axes else network[name]
            total += float(((a - b) ** 2).sum())
    return total


def main():
    dwf = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    compared = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dwf-bench-"))
    try:
        bench(dwf, count, compared, folder)
    finally:
        shutil.rmtree(folder)
    assignment()


def bench(dwf, count, compared, folder):
    zoo, aligned = folder / "zoo", folder / "aligned"
    zoo.mkdir()
    for i in range(count):
        torch.manual_seed(i)
        state = torchvision.models.resnet18().state_dict()
        for name, tensor in state.items():
            # Statistics and scales as training leaves them: not all alike.
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean") or "bn" in name or "downsample.1" in name:
                if tensor.is_floating_point():
                    tensor.add_(0.1 * torch.randn_like(tensor))
        state = {k: v for k, v in state.items() if v.is_floating_point()}
        save_file(state, zoo / f"net-{i:03}.safetensors")
    start = time.perf_counter()
    command = [dwf, "align", str(zoo), "--network", str(NETWORK), "-o", str(aligned)]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours = (time.perf_counter() - start) / (count - 1)

    groups = specification()
    files = sorted(zoo.iterdir())
    reference = load_file(files[0])
    generator = torch.Generator().manual_seed(0)
    theirs, distances = [], []
    for file in files[1 : compared + 1]:
        network = load_file(file)
        start = time.perf_counter()
        permutations, sweeps = match(reference, network, groups, generator)
        theirs.append(time.perf_counter() - start)
        result = load_file(aligned / file.name)
        identity = {group: torch.arange(len(p)) for group, p in permutations.items()}
        distances.append((
            distance(reference, network, groups, identity),
            distance(reference, network, groups, permutations),
            distance(reference, result, groups, identity),
        ))
        print(f"{file.name}: PyTorch {theirs[-1]:.1f} s, {sweeps} sweeps; "
              "squared distance before %.1f, PyTorch %.1f, dwf %.1f" % distances[-1])
    mean = sum(theirs) / len(theirs)
    print(f"a network: dwf {ours:.2f} s with reading, verification and writing (of {count}), "
          f"PyTorch {mean:.2f} s (of {compared}): {mean / ours:.1f}x")


def assignment():
    """The 3072-wide problem of a transformer's hidden layer; in one run with ours."""
    generator = numpy.random.default_rng(0)
    a, b = generator.standard_normal((2, 3072, 768), dtype=numpy.float32)
    problems = {
        "uniform": generator.random((3072, 3072), dtype=numpy.float32),
        "inner products": -(a @ b.T),
    }
    bench = ["cargo", "bench", "--quiet", "-p", "dwf-trainer", "--bench", "assignment", "--"]
    for kind, costs in problems.items():
        with tempfile.NamedTemporaryFile(suffix=".f32") as file:
            costs.tofile(file.name)
            start = time.perf_counter()
            rows, columns = linear_sum_assignment(costs)
            scipy = time.perf_counter() - start
            total = float(costs[rows, columns].astype(numpy.float64).sum())
            print(f"{kind}: SciPy {scipy:.3f} s, total {total:.3f}; dwf", end=" ", flush=True)
            subprocess.run([*bench, file.name], check=True, cwd=HERE.parent)


if __name__ == "__main__":
    main()
