"""PyTorch peers of flow, norm-attention, diag-attention and simplified-linear: the papers' formulas as their authors write them, but
causal products as masked matrix products instead of a running [B,H,L,d,d] context. class(width, heads, causal), x [B,L,D] -> [B,L,D]."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Heads(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.d, self.causal = heads, width // heads, causal
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def split(self, x):
        b, l, _ = x.shape
        return (f(x).view(b, l, self.heads, self.d).transpose(1, 2) for f in (self.q, self.k, self.v))

    def merge(self, o):
        return o.transpose(1, 2).reshape(o.shape[0], o.shape[2], -1)

    def product(self, q, k, v):
        """q (k^T v), causal or not"""
        return torch.tril(q @ k.transpose(-1, -2)) @ v if self.causal else q @ (k.transpose(-1, -2) @ v)


class Flow(Heads):
    """Wu et al. 2022"""

    def forward(self, x, e=1e-6):
        q, k, v = self.split(x)
        q, k = torch.sigmoid(q), torch.sigmoid(k)

        def total(y):
            return y.cumsum(2) if self.causal else y.sum(2, keepdim=True)

        n = x.shape[1]
        t = torch.arange(1, n + 1, dtype=x.dtype)[:, None] if self.causal else 1.0
        sink = ((q + e) * (total(k) + e)).sum(-1, keepdim=True)
        source = ((k + e) * (total(q) + e)).sum(-1, keepdim=True)
        kept_sink = ((q + e) * (total(k * (t / source)) + e)).sum(-1, keepdim=True) / t
        kept_source = (((k + e) * (total(q * (t / sink)) + e)).sum(-1, keepdim=True) / t).clamp(-1, 1)
        if self.causal:
            share = kept_source.exp()
            share = share / share.cumsum(2) * t
        else:
            share = torch.softmax(kept_source, 2) * n
        return self.o(self.merge(self.product(q / sink, k, v * share) * torch.sigmoid(kept_sink)))


def srms(x, eps=1e-8):
    return x / (x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5 + eps)


class Lrpe(nn.Module):
    """A fixed reflection, then rotation by learned angles. z [.., L, d]"""

    def __init__(self, d):
        super().__init__()
        self.theta = nn.Parameter(10000 ** (-2 / d * torch.arange(d // 2, dtype=torch.float32)))
        self.register_buffer("u", F.normalize(torch.randn(d), dim=0))

    def forward(self, z):
        z = z - 2 * (z @ self.u)[..., None] * self.u
        angle = torch.arange(z.shape[-2], dtype=z.dtype)[:, None] * self.theta
        cos, sin = angle.cos(), angle.sin()
        a, b = z[..., 0::2], z[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


class NormAttention(Heads):
    """Qin et al. 2022, elu"""

    def __init__(self, width, heads, causal):
        super().__init__(width, heads, causal)
        self.lrpe = Lrpe(self.d)

    def forward(self, x):
        q, k, v = self.split(x)
        q, k = self.lrpe(F.elu(q)), self.lrpe(F.elu(k))
        return self.o(srms(self.merge(self.product(q, k, v))))


class DiagAttention(Heads):
    """Qin et al. 2022, relu, blocks of 64"""

    def __init__(self, width, heads, causal, block=64):
        super().__init__(width, heads, causal)
        self.lrpe, self.block = Lrpe(self.d), block

    def forward(self, x):
        q, k, v = self.split(x)
        l, w = x.shape[1], self.block
        q, k, v = (F.pad(y, (0, 0, 0, -l % w)).unflatten(2, (-1, w)) for y in (q * self.d**-0.5, k, v))
        s = self.lrpe(q) @ self.lrpe(k).transpose(-1, -2)
        o = F.relu(torch.tril(s) if self.causal else s) @ v
        return self.o(srms(self.merge(o.flatten(2, 3)[:, :, :l])))


class SimplifiedLinear(Heads):
    """Guo et al. 2024, over a square grid"""

    def __init__(self, width, heads, causal, kernel=5):
        super().__init__(width, heads, causal)
        self.conv = nn.Conv2d(self.d, self.d, kernel, padding=kernel // 2, groups=self.d)
        self.position = None  # as long as the first input

    def forward(self, x):
        b, n, _ = x.shape
        side = int(n**0.5)
        if self.position is None:
            self.position = nn.Parameter(torch.zeros(1, *x.shape[1:]))
        q, v = (f(x).view(b, n, self.heads, self.d).transpose(1, 2) for f in (self.q, self.v))
        k = F.relu(self.k(x) + self.position).view(b, n, self.heads, self.d).transpose(1, 2)
        q = F.relu(q)
        z = 1 / ((q * k.sum(2, keepdim=True)).sum(-1, keepdim=True) + 1e-6)
        o = z * ((q @ k.transpose(-1, -2)) @ v if n <= self.d else q @ (k.transpose(-1, -2) @ v))
        picture = v.reshape(b * self.heads, side, side, self.d).permute(0, 3, 1, 2)
        local = self.conv(picture).permute(0, 2, 3, 1).reshape(b, self.heads, n, self.d)
        return self.o(self.merge(o + local))


PEERS = {"flow": Flow, "norm-attention": NormAttention, "diag-attention": DiagAttention, "simplified-linear": SimplifiedLinear}
