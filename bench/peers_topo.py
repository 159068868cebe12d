"""Token mixers that work on the tokens themselves, in plain PyTorch: what bench/mixers.c is compared with.

Every class takes (width, heads, causal); forward(x [B,L,D]) -> y [B,L,D]. The grid is square.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F


class Pool(nn.Module):
    """PoolFormer: average over 3x3 neighbours, borders by what is there, less the token itself."""

    def __init__(self, width, heads, causal, size=3):
        super().__init__()
        self.pool = nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)

    def forward(self, x):
        B, L, D = x.shape
        side = math.isqrt(L)
        m = x.transpose(1, 2).reshape(B, D, side, side)
        return (self.pool(m) - m).flatten(2).transpose(1, 2)


class Identity(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()

    def forward(self, x):
        return x


class SpatialFc(nn.Module):
    """One dense matrix over positions, the same for all channels; made when the first input tells its size."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.fc = None

    @torch.compiler.disable
    def make(self, n):
        self.fc = nn.Linear(n, n, bias=False)

    def forward(self, x):
        if self.fc is None:
            self.make(x.shape[1])
        return self.fc(x.transpose(1, 2)).transpose(1, 2)


class Random(nn.Module):
    """A frozen random matrix over positions, each row a softmax."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.matrix = None

    @torch.compiler.disable
    def make(self, n):
        self.matrix = torch.rand(n, n)

    def forward(self, x):
        if self.matrix is None:
            self.make(x.shape[1])
        return torch.softmax(self.matrix, -1) @ x


class Gate(nn.Module):
    """Activator's gating unit: one LayerNorm for gate and value."""

    def __init__(self, width, heads, causal, ratio=2):
        super().__init__()
        hidden = ratio * width
        self.gate, self.value, self.out = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        return self.out(self.norm(F.gelu(self.gate(x))) * self.norm(self.value(x)))


PEERS = {"pool": Pool, "identity": Identity, "spatialfc": SpatialFc, "random": Random, "glu": Gate}
