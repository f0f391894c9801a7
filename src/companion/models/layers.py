"""The layers of a block: norm, attention, mLSTM, SwiGLU. Matrices that read the same input are one matrix.

Sources: arXiv 2302.13971 (the Transformer), arXiv 2503.13427 (the xLSTM), arXiv 2104.09864 (rotary embedding).
Shapes: x is (B, T, d), B sequences of T tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.architectures.attention import Attention as AttentionShapes
from companion.architectures.mlstm import MLSTM as MLSTMShapes
from companion.kernels import MLSTMState, mlstm, mlstm_step
from companion.kernels.generation.api import Gates, attend_step, gated_head_norm, linear_step, rotate
from companion.models.memory import KeysValues

NORM_EPSILON = 1e-6
#: Base of the angles of the rotary embedding (arXiv 2104.09864, section 3.2.2).
ROTARY_BASE = 10_000.0
#: a of a·tanh(x/a), which bounds the gates of the mLSTM (arXiv 2503.13427, section 3.2).
GATE_CAP = 15.0


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """x bounded by ±cap: cap·tanh(x/cap)."""
    return cap * torch.tanh(x / cap)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · weight over the last dimension (arXiv 1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), NORM_EPSILON)


class HeadNorm(nn.Module):
    """LayerNorm of every head by itself, with one weight a number (arXiv 2503.13427, `MultiHeadLayerNorm`)."""

    def __init__(self, n_heads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_heads * width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, H, d_hv) to (…, H·d_hv)."""
        normed = F.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON).to(x.dtype)  # autocast makes it float32
        return normed.flatten(-2) * self.weight.to(x.dtype)


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) ⊙ W_up x) (arXiv 2002.05202); both matrices of the input are one."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)

    def step(self, x: Tensor, norm: RMSNorm) -> Tensor:
        """x + ffn(norm(x)) of one token a sequence, x (B, d)."""
        inner, _ = linear_step(x, self.gate_up.weight, norm=norm.weight, swiglu=True)
        return linear_step(inner, self.down.weight, residual=x)[0]


@torch.library.custom_op("companion::rotary_angles", mutates_args=())
def rotary_angles(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, width/2) of the rotary embedding: position / base^(2j/width), float32.

    An operator, so that a compiler computes them once a pass and not again in every kernel that turns queries or keys.
    """
    exponents = torch.arange(width // 2, device=positions.device, dtype=torch.float32) / (width // 2)
    angles = positions.to(torch.float32)[:, None] * ROTARY_BASE**-exponents
    return angles.cos(), angles.sin()


@rotary_angles.register_fake
def _(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    size = (positions.shape[0], width // 2)
    return positions.new_empty(size, dtype=torch.float32), positions.new_empty(size, dtype=torch.float32)


@dataclass(frozen=True)
class Place:
    """Where the tokens of a pass are: positions (T,), their rotary angles, and whether the memory was empty."""

    positions: Tensor
    angles: tuple[Tensor, Tensor] | None
    fresh: bool


class Attention(nn.Module):
    """Causal attention with rotary embedding; grouped heads, a window, norms of queries and keys as its shapes say."""

    def __init__(self, d_model: int, shapes: AttentionShapes) -> None:
        super().__init__()
        self.shapes = shapes
        self.widths = (shapes.n_heads * shapes.d_qk, shapes.n_kv_heads * shapes.d_qk, shapes.n_kv_heads * shapes.d_hv)
        self.grouped = shapes.n_kv_heads != shapes.n_heads
        self.qkv = nn.Linear(d_model, sum(self.widths), bias=False)
        self.out = nn.Linear(shapes.n_heads * shapes.d_hv, d_model, bias=False)
        self.q_norm = RMSNorm(int(shapes.d_qk)) if shapes.qk_norm else None
        self.k_norm = RMSNorm(int(shapes.d_qk)) if shapes.qk_norm else None

    def forward(self, x: Tensor, place: Place, memory: KeysValues | None = None) -> Tensor:
        """(B, T, d) to (B, T, d); a memory is seen too, and then has these tokens."""
        q, k, v = self._heads(self.qkv(x), place)
        positions, window = place.positions, self.shapes.window
        new, seen = (k, v), positions
        if memory is not None and not place.fresh:  # what new tokens overwrite is still seen by the first of them
            k, v = torch.cat((memory.keys, k), dim=2), torch.cat((memory.values, v), dim=2)
            seen = torch.cat((memory.positions(positions[0]), positions))
        if memory is not None:
            memory.add(*new, positions)
        if seen is positions and not window:
            h = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        else:
            distance = positions[:, None] - seen
            mask = (distance >= 0) & (seen >= 0)
            if window:
                mask &= distance < window
            h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=self.grouped)
        return self.out(h.transpose(1, 2).flatten(-2))

    def step(self, x: Tensor, norm: RMSNorm, place: Place, memory: KeysValues) -> Tensor:
        """x + attention(norm(x)) of one token a sequence, x (B, d)."""
        qkv, _ = linear_step(x, self.qkv.weight, norm=norm.weight)
        assert place.angles is not None
        norms = None if self.q_norm is None or self.k_norm is None else (self.q_norm.weight, self.k_norm.weight)
        h = attend_step(qkv, place.angles, place.positions[0], memory.keys, memory.values, norms)
        return linear_step(h, self.out.weight, residual=x)[0]

    def _heads(self, qkv: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, T, d), queries and keys turned to their positions."""
        shapes = self.shapes
        q, k, v = qkv.split(self.widths, dim=-1)
        q = q.unflatten(-1, (shapes.n_heads, shapes.d_qk))
        k = k.unflatten(-1, (shapes.n_kv_heads, shapes.d_qk))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        v = v.unflatten(-1, (shapes.n_kv_heads, shapes.d_hv)).transpose(1, 2)
        assert place.angles is not None  # a model with attention has them
        return rotate(q.transpose(1, 2), *place.angles), rotate(k.transpose(1, 2), *place.angles), v


class MLSTM(nn.Module):
    """The mLSTM layer of xLSTM 7B: bounded gates, a norm over each head, an output gate (arXiv 2503.13427, sec. 3)."""

    def __init__(self, d_model: int, shapes: MLSTMShapes) -> None:
        super().__init__()
        self.shapes = shapes
        hidden = shapes.n_heads * shapes.d_hv
        self.widths = (shapes.n_heads * shapes.d_qk, shapes.n_heads * shapes.d_qk, hidden, hidden)
        self.qkvo = nn.Linear(d_model, sum(self.widths), bias=False)
        self.gates = nn.Linear(d_model, 2 * shapes.n_heads)
        self.norm = HeadNorm(int(shapes.n_heads), int(shapes.d_hv))
        self.out = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor, place: Place, memory: MLSTMState | None = None) -> Tensor:
        """(B, T, d) to (B, T, d); a memory is the state before the first token, and becomes that after the last."""
        q, k, v, gate = self._split(self.qkvo(x))
        i, f = self._gates(self.gates(x))
        if memory is None:
            # the norm over each head ignores the scale of h, so that the cheaper gradient is exact
            h = mlstm(q, k, v, i, f, normalizer_gradient=False)
        else:
            h, after = mlstm(q, k, v, i, f, initial_state=None if place.fresh else memory, return_state=True)
            for kept, new in zip(memory, after, strict=True):
                kept.copy_(new)
        return self.out(torch.sigmoid(gate) * self.norm(h))

    def step(self, x: Tensor, norm: RMSNorm, place: Place, memory: MLSTMState) -> Tensor:
        """x + mlstm(norm(x)) of one token a sequence, x (B, d); the state is updated in place."""
        gates = Gates(self.gates.weight, self.gates.bias, GATE_CAP)
        qkvo, both = linear_step(x, self.qkvo.weight, norm=norm.weight, gates=gates)
        q, k, v, gate = self._split(qkvo)
        assert both is not None
        i, f = both.chunk(2, dim=-1)
        h, _ = mlstm_step(q, k, v, i, f, memory)
        return linear_step(gated_head_norm(h, gate, self.norm.weight), self.out.weight, residual=x)[0]

    def _split(self, qkvo: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values with heads, (…, H, d), and the output gate, (…, H·d_hv)."""
        q, k, v, gate = qkvo.split(self.widths, dim=-1)
        q, k, v = (each.unflatten(-1, (self.shapes.n_heads, -1)) for each in (q, k, v))
        return q, k, v, gate

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input and forget gates (…, H), bounded, in float32 or finer."""
        i, f = soft_cap(x.to(torch.promote_types(x.dtype, torch.float32)), GATE_CAP).chunk(2, dim=-1)
        return i, f
