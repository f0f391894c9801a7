"""The Transformer: every layer is causal attention."""

from typing import ClassVar

from companion.architectures.attention import Attention
from companion.architectures.base import Architecture
from companion.architectures.mixer import Mixer
from companion.architectures.shapes import Shape


class Transformer(Architecture):
    """Llama-2 style Transformer (arXiv 2302.13971): causal attention with rotary embedding, SwiGLU, RMSNorm, no biases.

    Queries, keys and values all have width `d_model / n_heads` unless given. The paper's models have neither grouped
    heads, nor `qk_norm`, nor a window. With a `window` and `attention_every` k, every k-th layer sees all tokens.
    """

    name = "transformer"
    mixer_class = Attention
    #: the Token/Param runs of arXiv 2510.02228 (data/runs.csv)
    sizes: ClassVar[dict[str, tuple[int, int, int]]] = {
        "160m": (768, 12, 12),
        "400m": (1024, 24, 16),
        "830m": (1536, 24, 16),
        "1.4b": (2048, 24, 16),
        "2.7b": (2560, 32, 32),
        "7b": (4096, 32, 32),
    }

    def mixer(self) -> Mixer:
        return self._attention(self.n_heads, self.d_qk, self.d_hv, self.window)

    def attention_mixer(self) -> Mixer:
        return self._attention(self.n_heads, self.d_qk, self.d_hv, None)

    def _default_d_qk(self) -> Shape:
        return self.d_hv

    def _default_d_ff(self) -> Shape:
        return -(-8 * self.d_model // 192) * 64  # 8/3 of the width, up to a multiple of 64
