"""Alignment of ResNet-18 zoos: `dwf align` against weight matching in PyTorch and SciPy.

    python3 benches/alignment.py zoo ZOO [NETWORKS]
    python3 benches/alignment.py compare target/release/dwf ZOO [COMPARED] [REFERENCE]
    python3 benches/alignment.py assign

Needs torch, torchvision, scipy, safetensors. `zoo` makes NETWORKS (default 100) checkpoints of
torchvision's ResNet-18, 11.7 million parameters each. `compare` aligns them with `dwf align`:
reading, matching, verifying in ONNX Runtime and writing. PyTorch matches COMPARED (default 3) of
them and does nothing else, by the algorithm of Git Re-Basin (Ainsworth et al., arXiv 2209.04836,
algorithm 1): sweeps over the permutations in random order, each an inner product of permuted tensors
and a linear assignment, until a sweep changes nothing. With REFERENCE, the folder `flowmatching` of
DeepWeightFlow's own code, that code does it. `assign` solves assignments of 3072 units by SciPy and
by ours.
"""

import pathlib
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


def by_reference(folder):
    """DeepWeightFlow's own weight matching, called like `match`."""
    sys.path.insert(0, folder)
    import gitrebasin
    import permutation_specs

    spec = permutation_specs.resnet18_permutation_spec()

    def matched(reference, network, _groups, _generator):
        return gitrebasin.weight_matching(spec, reference, network, device="cpu"), None

    return matched, spec.perm_to_axes


def zoo(folder, count=100):
    folder = pathlib.Path(folder)
    folder.mkdir()
    for i in range(int(count)):
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
        save_file(state, folder / f"net-{i:03}.safetensors")


def compare(dwf, folder, compared=3, code=None):
    files = sorted(pathlib.Path(folder).iterdir())
    matching, groups = by_reference(code) if code else (match, specification())
    identity = {
        group: torch.arange(load_file(files[0])[places[0][0]].shape[places[0][1]])
        for group, places in groups.items()
    }
    with tempfile.TemporaryDirectory(dir=files[0].parent.parent) as output:
        aligned = pathlib.Path(output) / "aligned"
        command = [dwf, "align", folder, "--network", str(NETWORK), "-o", str(aligned)]
        start = time.perf_counter()
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ours = (time.perf_counter() - start) / (len(files) - 1)

        reference = load_file(files[0])
        generator = torch.Generator().manual_seed(0)
        theirs = []
        for file in files[1 : int(compared) + 1]:
            network = load_file(file)
            start = time.perf_counter()
            permutations, sweeps = matching(reference, network, groups, generator)
            theirs.append(time.perf_counter() - start)
            before, found, own = (
                distance(reference, network, groups, identity),
                distance(reference, network, groups, permutations),
                distance(reference, load_file(aligned / file.name), groups, identity),
            )
            print(f"{file.name}: PyTorch {theirs[-1]:.1f} s, {sweeps or '?'} sweeps; squared "
                  f"distance before {before:.1f}, PyTorch {found:.1f}, dwf {own:.1f}", flush=True)
    mean = sum(theirs) / len(theirs)
    print(f"a network: dwf {ours:.2f} s with reading, verification and writing (of {len(files)}), "
          f"PyTorch {mean:.2f} s (of {len(theirs)}): {mean / ours:.1f}x")


def assign(units=3072, length=768, rounds=3):
    """The hidden layer of BERT-base or ViT-B: both solvers in one run, the best of a few."""
    generator = numpy.random.default_rng(0)
    a, b = generator.standard_normal((2, units, length), dtype=numpy.float32)
    noisy = a[generator.permutation(units)] + 2 * b
    short = a[:, :8] @ b[:, :8].T
    problems = {
        "uniform": generator.random((units, units), dtype=numpy.float32),
        "inner products of independent vectors": -(a @ b.T),
        "inner products with a noisy copy": -(a @ noisy.T),
        "ten values, so many ties": generator.integers(10, size=(units, units)).astype("float32"),
        "inner products of vectors of 8": -short,
    }
    bench = ["cargo", "bench", "--quiet", "-p", "dwf-trainer", "--bench", "assignment", "--"]
    for kind, costs in problems.items():
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            rows, columns = linear_sum_assignment(costs)
            seconds.append(time.perf_counter() - start)
        total = float(costs[rows, columns].astype(numpy.float64).sum())
        with tempfile.NamedTemporaryFile(suffix=".f32") as file:
            costs.tofile(file.name)
            run = subprocess.run([*bench, file.name], check=True, cwd=HERE.parent,
                                 capture_output=True, text=True)
        ours, own = map(float, run.stdout.split())
        print(f"{kind}: SciPy {min(seconds):.3f} s, total {total:.3f}; dwf {ours:.3f} s, "
              f"total {own:.3f}: {min(seconds) / ours:.1f}x", flush=True)


if __name__ == "__main__":
    {"zoo": zoo, "compare": compare, "assign": assign}[sys.argv[1]](*sys.argv[2:])
