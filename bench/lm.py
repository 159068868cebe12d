"""PyTorch peer of `weft bench`: the same language model (pre-norm, learned positions, tied embeddings, GELU tanh), written plainly.

usage: lm.py train eager|compile|bf16 [steps]      prints: ms <median of a step> peak_mb <peak resident memory>
       lm.py generate [tokens]                     prints: tokens_per_s <n>
Shapes: 6 layers, width 384, 6 heads, length 256, batch 16, 256 symbols, two threads; WEFT_BENCH_SHAPE="layers width heads length batch".
"""
import os
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(int(os.environ.get("WEFT_THREADS", "2")))
torch.manual_seed(1)
LAYERS, WIDTH, HEADS, LENGTH, BATCH = (int(x) for x in os.environ.get("WEFT_BENCH_SHAPE", "6 384 6 256 16").split())
VOCAB = 256


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, cache=None):
        b, l, _ = x.shape
        q, k, v = (t.view(b, l, HEADS, WIDTH // HEADS).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        if cache is not None:
            if "k" in cache:
                k, v = torch.cat((cache["k"], k), dim=2), torch.cat((cache["v"], v), dim=2)
            cache["k"], cache["v"] = k, v
        y = F.scaled_dot_product_attention(q, k, v, is_causal=l > 1)
        return self.out(y.transpose(1, 2).reshape(b, l, WIDTH))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x, cache=None):
        x = x + self.attention(self.norm1(x), cache)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Lm(nn.Module):
    def __init__(self, room=LENGTH):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB, WIDTH), nn.Embedding(room, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids, caches=None, start=0):
        x = self.tokens(ids) + self.positions(torch.arange(start, start + ids.shape[1]))
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return F.linear(self.norm(x), self.tokens.weight)


def train(mode, steps):
    model = Lm()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    run = torch.compile(model) if mode == "compile" else model
    seconds, warm = [], 3
    for step in range(steps + 3):
        ids = torch.randint(VOCAB, (BATCH, LENGTH + 1))
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "bf16"):
            logits = run(ids[:, :-1])
            loss = F.cross_entropy(logits.float().reshape(-1, VOCAB), ids[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        spent = time.perf_counter() - start
        if spent > 20 and seconds:  # a precision this machine has no instructions for: two steps tell enough
            seconds.append(spent)
            break
        if step >= warm or spent > 20:
            seconds.append(spent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"ms {1000 * statistics.median(seconds):.1f} peak_mb {peak:.0f}")


@torch.inference_mode()
def generate(tokens):
    model = Lm(room=tokens + 8).eval()
    best = 0.0
    for _ in range(3):
        caches = [{} for _ in range(LAYERS)]
        ids = torch.randint(VOCAB, (1, 1))
        start = time.perf_counter()
        for t in range(tokens):
            logits = model(ids, caches, t)
            ids = logits[:, -1:].argmax(-1)
        best = max(best, tokens / (time.perf_counter() - start))
    print(f"tokens_per_s {best:.1f}")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10)
    else:
        generate(int(sys.argv[2]) if len(sys.argv) > 2 else 512)
