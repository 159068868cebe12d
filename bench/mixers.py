"""PyTorch peer of bench/mixers.c: the same token mixers written plainly (peers_*.py), forward + backward, float32, width 384, 6 heads.

usage: mixers.py THREADS eager|compile BxL NAME...     prints "NAME BxL forward_ms total_ms", medians
"""
import statistics
import sys
import time

import torch

import peers_linear
import peers_soft
import peers_sparse
import peers_topo

WIDTH, HEADS, SPEND = 384, 6, 1.2
CAUSAL = {"softmax", "sigmoid", "complex", "linear", "flow", "norm-attention", "diag-attention", "performer", "lsh", "glu"}
PEERS = {**peers_soft.MIXERS, **peers_linear.PEERS, **peers_sparse.PEERS, **peers_topo.PEERS}


def median_ms(run):
    times, spent, k = [], 0.0, -1
    while len(times) < 3 or (spent < SPEND and len(times) < 60):
        start = time.perf_counter()
        run()
        d = time.perf_counter() - start
        spent += d
        if k >= 0:  # the first run warms up
            times.append(d)
        k += 1
    return 1e3 * statistics.median(times)


def measure(name, mode, B, L):
    torch.manual_seed(1)
    module = PEERS[name.replace("-bidirectional", "")](WIDTH, HEADS, name in CAUSAL)
    run = torch.compile(module) if mode == "compile" else module
    x = torch.randn(B, L, WIDTH, requires_grad=True)
    g = torch.randn(B, L, WIDTH)

    def both():
        module.zero_grad(set_to_none=True)
        x.grad = None
        run(x).backward(g)

    def forward():
        with torch.no_grad():
            run(x)

    for _ in range(3):  # compiles
        both()
    total = median_ms(both)
    return median_ms(forward), total


def main():
    torch.set_num_threads(int(sys.argv[1]))
    B, L = (int(n) for n in sys.argv[3].split("x"))
    for name in sys.argv[4:]:
        try:
            forward, total = measure(name, sys.argv[2], B, L)
            print(f"{name} {B}x{L} {forward:.3f} {total:.3f}", flush=True)
        except Exception as error:  # a peer that cannot run here is a result too
            print(f"{name} {B}x{L} failed: {str(error).splitlines()[0][:100]}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
