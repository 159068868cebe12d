"""PyTorch peer of bench/attention.c: scaled_dot_product_attention (CPU flash), forward + backward.

usage: attention.py THREADS DTYPE CAUSAL BxLxHxd...    prints one line a shape: BxLxHxd forward_ms total_ms (best of the runs)
"""
import sys
import time

import torch


def measure(B, L, H, d, dtype, causal):
    # [B,L,H,d] in memory, as a projection leaves it; the kernel sees [B,H,L,d]
    x = [torch.randn(B, L, H, d, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    g = torch.randn(B, L, H, d, dtype=dtype).transpose(1, 2)
    forward, total, spent, runs = 1e9, 1e9, 0.0, 0
    while runs < 3 or (spent < 2.0 and runs < 50):
        t0 = time.perf_counter()
        o = torch.nn.functional.scaled_dot_product_attention(*x, is_causal=causal)
        t1 = time.perf_counter()
        torch.autograd.grad(o, x, g)
        t2 = time.perf_counter()
        spent += t2 - t0
        runs += 1
        if runs > 1:  # the first run warms up
            forward, total = min(forward, t1 - t0), min(total, t2 - t0)
    return forward * 1e3, total * 1e3


def main():
    torch.set_num_threads(int(sys.argv[1]))
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[sys.argv[2]]
    causal = sys.argv[3] == "1"
    for text in sys.argv[4:]:
        forward, total = measure(*(int(n) for n in text.split("x")), dtype, causal)
        print(f"{text} {forward:.3f} {total:.3f}", flush=True)


if __name__ == "__main__":
    main()
