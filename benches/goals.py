#!/usr/bin/env python3
"""The README's table of goals, from nothing: zoos, flows, reports.

For each task a fresh zoo for every seed (or one zoo, where a zoo takes an hour), a training with that
seed, and `dwf report` on the test rows, which nothing was chosen by. What has been made in the folder
is kept, so that an interrupted run goes on. Hours on 2 cores, most of them for the ResNets:

    benches/goals.py [--folder build/goals] [--tasks iris,mlp,cartpole] [--seeds 61,62,63,64,65]
"""

import argparse
import json
import os
import subprocess
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
# What `dwf zoo` and `dwf train` are asked, and whether all seeds train on the first one's zoo.
TASKS = {
    "iris": ("iris", "", False),
    "mlp": ("digits --network mlp", "--basis linear --width 512", False),
    "cartpole": ("cartpole", "", False),
    "resnet": ("digits --network resnet", "--basis linear --width 512", True),
    "vit": ("digits --network vit", "--basis linear --width 512", True),
}


def dwf(arguments):
    program = os.environ.get("DWF", str(ROOT / "target/release/dwf"))
    subprocess.run([program, *arguments.split()], check=True, stdout=subprocess.DEVNULL)


def measure(folder, task, seed, first):
    """The report's figures of one training."""
    zoo_arguments, train_arguments, one_zoo = TASKS[task]
    zoo_seed = first if one_zoo else seed
    zoo = folder / f"{task}-zoo-{zoo_seed}"
    artifact = folder / f"{task}-{seed}.onnx"
    page = artifact.with_suffix(".html")
    if not zoo.exists():
        dwf(f"zoo {zoo_arguments} --seed {zoo_seed} -o {zoo}")
    if not artifact.exists():
        dwf(f"train {zoo} -o {artifact} --seed {seed} {train_arguments}")
    if not page.exists():
        dwf(f"report {artifact} --zoo {zoo} -o {page}")
    return json.loads(page.with_suffix(".json").read_text())["comparison"]


def row(task, seed, found):
    by_kind = lambda kind: [p for p in found["populations"] if p["kind"] == kind]
    generated, zoo = by_kind("generated")[0], by_kind("zoo")[0]
    best = max(by_kind("baseline"), key=lambda p: p["area"])
    difference = mean(generated["scores"]) - mean(zoo["scores"])
    if task == "cartpole":
        solved = sum(score >= 475 for score in generated["scores"])
        score = f"{100 * solved / len(generated['scores']):.0f} % reach 475"
    else:
        score = f"{100 * difference:+.2f} of {100 * mean(zoo['scores']):.1f} %"
    came = generated.get("as_they_came")
    if came is not None:
        came -= zoo["as_they_came"]
        score += f" ({100 * came:+.2f} with generated statistics)"
    return (
        f"| {task} | {seed} | {score} | {100 * generated['near_copies']:.0f} % "
        f"| {generated['area']:.3f} / {best['area']:.3f} ({best['name']}) |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build/goals")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="61,62,63,64,65")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DWF_ONNXRUNTIME", str(ROOT / ".ort/libonnxruntime.so"))
    seeds = [int(seed) for seed in options.seeds.split(",")]
    print("| zoo | seed | generated less zoo | near copies | novel and good / best baseline |")
    print("| --- | --- | --- | --- | --- |")
    for task in options.tasks.split(","):
        for seed in seeds:
            found = measure(options.folder, task, seed, seeds[0])
            print(row(task, seed, found), flush=True)


if __name__ == "__main__":
    main()
