"""PyTorch modules of the sparse mixers' formulas, as one writes them plainly: the peers, in benchmarks, of performer, linformer,
longformer, bigbird and lsh.

PEERS: name -> class(width, heads, causal) with forward(x [B,L,D]) -> [B,L,D]. Options are the defaults of the parts; CAUSAL names
those that have a causal form. Every module has q, k, v (or qk, v) and o linears with biases, as the parts have. No [L,L] matrix
is made where the method is about not making one.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

CAUSAL = {"performer", "longformer", "lsh"}


class Heads(nn.Module):
    def __init__(self, width, heads, causal, names=("q", "k", "v")):
        super().__init__()
        self.heads, self.causal, self.d = heads, causal, width // heads
        for name in names:
            setattr(self, name, nn.Linear(width, width))
        self.o = nn.Linear(width, width)

    def split(self, x):
        b, l, _ = x.shape
        return x.view(b, l, self.heads, self.d).transpose(1, 2)

    def merge(self, o):
        b, h, l, d = o.shape
        return self.o(o.transpose(1, 2).reshape(b, l, h * d))


class Performer(Heads):
    """FAVOR+; causal: chunks of 64 with a running state, keys subtract a fixed 0."""

    CHUNK = 64

    def __init__(self, width, heads, causal):
        super().__init__(width, heads, causal)
        m = int(self.d * math.log(self.d))
        blocks = [torch.linalg.qr(torch.randn(self.d, self.d))[0].T for _ in range(-(-m // self.d))]
        rows = torch.cat(blocks)[:m] * torch.randn(m, self.d).norm(dim=1, keepdim=True)
        self.register_buffer("projection", rows)

    def features(self, z, query):
        u = z * self.d**-0.25
        p = u @ self.projection.T
        half = u.square().sum(-1, keepdim=True) / 2
        if query:
            most = p.amax(-1, keepdim=True).detach()
        else:
            most = 0 if self.causal else p.amax((-1, -2), keepdim=True).detach()
        return self.projection.shape[0] ** -0.5 * (torch.exp(p - half - most) + 1e-4)

    def forward(self, x):
        q, k, v = (self.split(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.features(q, True), self.features(k, False)
        if not self.causal:
            return self.merge(q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(-2).unsqueeze(-1)))
        b, h, l, m = q.shape
        n, c = l // self.CHUNK, self.CHUNK
        q, k, v = q.view(b, h, n, c, m), k.view(b, h, n, c, m), v.view(b, h, n, c, self.d)
        state, total = k.transpose(-1, -2) @ v, k.sum(-2)
        state = F.pad(state.cumsum(2)[:, :, :-1], (0, 0, 0, 0, 1, 0))
        total = F.pad(total.cumsum(2)[:, :, :-1], (0, 0, 1, 0))
        a = (q @ k.transpose(-1, -2)).tril()
        below = a.sum(-1) + (q @ (total + 1e-6).unsqueeze(-1)).squeeze(-1)
        o = (a @ v + q @ state) / below.unsqueeze(-1)
        return self.merge(o.view(b, h, l, self.d))


class Linformer(Heads):
    def __init__(self, width, heads, causal, k=256, longest=4096):
        super().__init__(width, heads, causal)
        self.E, self.F = (nn.Parameter(torch.empty(longest, k).uniform_(-1, 1) / math.sqrt(k)) for _ in range(2))

    def forward(self, x):
        l = x.shape[1]
        q, k, v = self.q(x), self.E[:l].T @ self.k(x), self.F[:l].T @ self.v(x)
        return self.merge(F.scaled_dot_product_attention(self.split(q), self.split(k), self.split(v)))


class Longformer(Heads):
    """Chunks of the window see themselves and the chunk(s) beside; the global token's column is one more key."""

    def __init__(self, width, heads, causal, window=256):
        super().__init__(width, heads, causal, ("q", "k", "v"))
        self.window = window

    def forward(self, x):
        w = self.window
        q, k, v = (self.split(f(x)) for f in (self.q, self.k, self.v))
        b, h, l, d = q.shape
        n, sides = l // w, 2 if self.causal else 3
        q = q.reshape(b, h, n, w, d)
        pad = (0, 0, w, 0) if self.causal else (0, 0, w, w)
        k, v = (F.pad(t, pad).unfold(2, sides * w, w).transpose(-1, -2) for t in (k, v))
        i = torch.arange(w).view(w, 1) + w
        j = torch.arange(sides * w).view(1, -1)
        seen = (i - j).abs() <= w
        if self.causal:
            seen = seen & (j <= i)
        at = torch.arange(n).view(n, 1, 1) * w + j - w
        seen = seen & (at >= 0) & (at < l)
        s = (q @ k.transpose(-1, -2) / math.sqrt(d)).masked_fill(~seen, float("-inf"))
        return self.merge((s.softmax(-1) @ v).view(b, h, l, d))


class BigBird(Heads):
    """Blocks of 64: the first and the last see everything; the others the first, the last, neighbours and three random ones."""

    def __init__(self, width, heads, causal, block=64, random=3, longest=4096):
        super().__init__(width, heads, causal)
        self.block, self.random = block, random
        torch.manual_seed(1)

    def lists(self, n):
        """[H,n-2,R]: random inner blocks outside of the band, fewer where there are too few (-1)."""
        out = torch.full((self.heads, n - 2, self.random), -1)
        for h in range(self.heads):
            for r in range(1, n - 1):
                free = [k for k in range(1, n - 1) if abs(k - r) > 1]
                pick = torch.randperm(len(free))[: self.random]
                for i, p in enumerate(pick):
                    out[h, r - 1, i] = free[p]
        return out

    @torch.compiler.disable
    def prepare(self, n):
        """Key blocks of inner rows [H,n-2,5+R] and which of them count (no block twice)."""
        if getattr(self, "prepared", (0,))[0] != n:
            r = torch.arange(1, n - 1).view(1, n - 2, 1).expand(self.heads, -1, -1)
            at = torch.cat((torch.zeros_like(r), torch.full_like(r, n - 1), r - 1, r, r + 1, self.lists(n)), -1)
            counts = at >= 0
            for i in range(2, 5):
                counts[..., i] &= (at[..., i] != 0) & (at[..., i] != n - 1)
            self.prepared = (n, at.clamp(min=0), counts)
        return self.prepared[1:]

    def forward(self, x):
        q, k, v = (self.split(f(x)) for f in (self.q, self.k, self.v))
        b, h, l, d = q.shape
        c = self.block
        n = l // c
        at, counts = self.prepare(n)
        ends = torch.cat((q[:, :, :c], q[:, :, -c:]), 2)
        ends = F.scaled_dot_product_attention(ends, k, v)
        head = torch.arange(h).view(h, 1, 1)
        kb, vb = (t.reshape(b, h, n, c, d)[:, head, at].reshape(b, h, n - 2, -1, d) for t in (k, v))
        s = q[:, :, c:-c].reshape(b, h, n - 2, c, d) @ kb.transpose(-1, -2) / math.sqrt(d)
        s = s.masked_fill(~counts.repeat_interleave(c, -1).unsqueeze(-2), float("-inf"))
        o = (s.softmax(-1) @ vb).reshape(b, h, (n - 2) * c, d)
        return self.merge(torch.cat((ends[:, :, :c], o, ends[:, :, c:]), 2))


class LSH(Heads):
    """Reformer: sorted by bucket, chunks of 64 see themselves and the one before, eight rounds."""

    def __init__(self, width, heads, causal, bucket=64, rounds=8):
        super().__init__(width, heads, causal, ("qk", "v"))
        self.bucket, self.rounds = bucket, rounds

    def forward(self, x):
        b, l, _ = x.shape
        h, d, n, c = self.heads, self.d, self.rounds, self.bucket
        qk, v = (self.split(f(x)).reshape(b * h, l, d) for f in (self.qk, self.v))
        buckets = l // c
        r = torch.randn(d, n, buckets // 2)
        p = torch.einsum("btf,fhi->bhti", qk.detach(), r)
        bucket = torch.cat((p, -p), -1).argmax(-1) + torch.arange(n).view(1, n, 1) * buckets
        key = (bucket * l + torch.arange(l)).view(b * h, n * l)
        order = key.argsort(-1)
        undo = order.argsort(-1)
        at = order % l
        take = lambda t, i: t.gather(1, i.unsqueeze(-1).expand(-1, -1, t.shape[-1]))
        chunks = lambda t: t.view(b * h, n * buckets, c, *t.shape[2:])
        back = lambda t: torch.cat((t, torch.cat((t[:, -1:], t[:, :-1]), 1)), 2)
        q, val = chunks(take(qk, at)), back(chunks(take(v, at)))
        k = back(F.normalize(q, dim=-1))
        tq = chunks(at)
        tk = back(tq)
        s = q @ k.transpose(-1, -2) / math.sqrt(d)
        if self.causal:
            s = s.masked_fill(tq.unsqueeze(-1) < tk.unsqueeze(-2), -1e30)
        s = s.masked_fill(tq.unsqueeze(-1) == tk.unsqueeze(-2), -5e4)
        lse = s.logsumexp(-1, keepdim=True)
        o = torch.exp(s - lse) @ val
        o = take(o.view(b * h, n * l, d), undo).view(b * h, n, l, d)
        lse = take(lse.view(b * h, n * l, 1), undo).view(b * h, n, l, 1)
        return self.merge((o * lse.softmax(1)).sum(1).view(b, h, l, d))


PEERS = {"performer": Performer, "linformer": Linformer, "longformer": Longformer, "bigbird": BigBird, "lsh": LSH}
