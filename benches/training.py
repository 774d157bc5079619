#!/usr/bin/env python3
"""Training steps a second: dwf train against PyTorch eager, on this machine's CPU or, built with the
feature cuda, on its GPU, in one run.

usage: training.py TRAINING [cuda]

TRAINING is the program that `cargo bench -p dwf-trainer --bench training --no-run` names. Both train
the reference's network (h 512) on 100 random latents. PyTorch does what the reference's loop does:
noise and latents drawn from tensors in memory, forward, loss, backward, AdamW; in its fused form too,
and the faster of the two counts. dwf also mixes latents, clips, and keeps a moving average. They take
turns, and the best of three turns counts. Needs: pip install torch numpy.
"""
import subprocess, sys, time
import torch
from torch import nn

CASES = [(99, 8), (99, 100), (26506, 8), (26506, 100)]
WIDTH, TIME, NETWORKS, TURNS = 512, 64, 100, 3
SECONDS = {"cpu": 5, "cuda": 2}


class Reference(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, TIME), nn.GELU(), nn.Linear(TIME, TIME))
        sizes = [latent + TIME, WIDTH, WIDTH // 2, WIDTH]
        layers = [layer for inputs, outputs in zip(sizes, sizes[1:])
                  for layer in (nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU())]
        self.net = nn.Sequential(*layers, nn.Linear(WIDTH, latent))

    def forward(self, x, t):
        return self.net(torch.cat([x, self.time(t)], dim=1))


def pytorch(latent, batch, fused, device):
    torch.manual_seed(0)
    torch.set_default_device(device)
    model, latents = Reference(latent), torch.randn(NETWORKS, latent)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)

    def step():
        x0, x1 = torch.randn(batch, latent), latents[torch.randint(NETWORKS, (batch,))]
        t = torch.rand(batch, 1)
        loss = ((model((1 - t) * x0 + t * x1, t) - (x1 - x0)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def finish():
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    finish()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS[device]:
        step()
        steps += 1
    finish()
    return steps / (time.perf_counter() - start)


def dwf(program, latent, batch, device):
    command = [program, str(latent), str(WIDTH), str(batch), str(SECONDS[device]), device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    program, device = [*sys.argv[1:], "cpu"][:2]
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}; steps a second")
    for latent, batch in CASES:
        turns = [(dwf(program, latent, batch, device), pytorch(latent, batch, False, device),
                  pytorch(latent, batch, True, device)) for _ in range(TURNS)]
        ours, plain, fused = (max(column) for column in zip(*turns))
        print(f"d {latent:5}, batch {batch:3}: dwf {ours:8.1f} | PyTorch {plain:8.1f}, fused "
              f"{fused:8.1f} | ratio {ours / max(plain, fused):.2f}", flush=True)


if __name__ == "__main__":
    main()
