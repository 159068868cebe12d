"""Plain PyTorch peers of the softmax family of mixers, written as their formulas are: all scores exist.

MIXERS: name -> class(width, heads, causal); module(x [B,L,width]) -> y [B,L,width]. No biases, no dropout.
softmax and complex also come with torch's own fused attention (softmax-sdpa, complex-sdpa).
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class Heads(nn.Module):
    """q, k, v by head [B,H,L,d], and the way back."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal, self.d = heads, causal, width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def split(self, x):
        b, l, w = x.shape
        return (t.view(b, l, self.heads, self.d).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))

    def merge(self, o):
        b, _, l, _ = o.shape
        return self.out(o.transpose(1, 2).reshape(b, l, self.heads * self.d))

    def hidden(self, l, device):
        return torch.ones(l, l, dtype=torch.bool, device=device).triu(1)


class Softmax(Heads):
    def attend(self, q, k, v, scale):
        s = (q @ k.transpose(-2, -1)) * scale
        if self.causal:
            s = s.masked_fill(self.hidden(s.shape[-1], s.device), float("-inf"))
        return s.softmax(dim=-1) @ v

    def forward(self, x):
        q, k, v = self.split(x)
        return self.merge(self.attend(q, k, v, self.d**-0.5))


class SoftmaxFused(Softmax):
    def attend(self, q, k, v, scale):
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=scale)


class Sigmoid(Heads):
    """47: LayerNorm of queries and keys, bias -ln L."""

    def __init__(self, width, heads, causal):
        super().__init__(width, heads, causal)
        self.q_norm, self.k_norm = nn.LayerNorm(self.d, eps=1e-5), nn.LayerNorm(self.d, eps=1e-5)

    def forward(self, x):
        q, k, v = self.split(x)
        q, k = self.q_norm(q) * self.d**-0.5, self.k_norm(k)
        s = q @ k.transpose(-2, -1)
        if self.causal:
            s = s.masked_fill(self.hidden(s.shape[-1], s.device), torch.finfo(s.dtype).min)
        return self.merge(torch.sigmoid(s - math.log(x.shape[1])) @ v)


class Complex(Softmax):
    """43 in its factored form: q' and k' in front of attention without a scale."""

    def __init__(self, width, heads, causal):
        super().__init__(width, heads, causal)
        h = self.d // 2
        self.delta = nn.Parameter(torch.randn(heads, 1, h) * h**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads, 1, h))
        self.register_buffer("speed", 10000.0 ** (-torch.arange(h) / h))

    def turn(self, z, shift):
        re, im = z.chunk(2, dim=-1)
        r = torch.sqrt(re * re + im * im + 1e-9)
        a = torch.atan2(im, re) * self.delta + shift
        return torch.cat((r * torch.cos(a), r * torch.sin(a)), dim=-1)

    def forward(self, x):
        q, k, v = self.split(x)
        angle = torch.arange(x.shape[1], device=x.device)[:, None] * self.speed
        return self.merge(self.attend(self.turn(q, self.bias + angle), self.turn(k, angle), v, 1.0))


class ComplexFused(Complex):
    attend = SoftmaxFused.attend


class Linear(Heads):
    """elu + 1 (Katharopoulos et al. 2020); causal: chunk by chunk with a running state."""

    CHUNK = 128

    def forward(self, x):
        q, k, v = self.split(x)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        v = torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)
        if not self.causal:
            o = q @ (k.transpose(-2, -1) @ v)
        else:
            state, parts = 0, []
            for q_, k_, v_ in zip(q.split(self.CHUNK, 2), k.split(self.CHUNK, 2), v.split(self.CHUNK, 2)):
                o = (q_ @ k_.transpose(-2, -1)).tril() @ v_
                parts.append(o + q_ @ state if parts else o)
                state = state + k_.transpose(-2, -1) @ v_
            o = torch.cat(parts, dim=2)
        return self.merge(o[..., :-1] / (o[..., -1:] + 1e-6))


MIXERS = {
    "softmax": Softmax,
    "softmax-sdpa": SoftmaxFused,
    "sigmoid": Sigmoid,
    "complex": Complex,
    "complex-sdpa": ComplexFused,
    "linear": Linear,
}
