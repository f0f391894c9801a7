"""A step of training that is timed: forward and backward pass, AdamW; launched eagerly, compiled, as one CUDA graph.

Weights, gradients and the moments of AdamW are float32; products and the residual stream are bfloat16 by autocast.
Blocks are compiled one by one (`companion.benchmarks.models.launches`), embedding and loss by themselves. Needs torch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from companion.architectures import Architecture, Attention
from companion.benchmarks.models import launches
from companion.benchmarks.models.timed import peak_bytes, release, reset_peak, timing_of
from companion.models.layers import Place, rotary_angles
from companion.models.memory import mixers

OPTIMIZER = "AdamW, fused"
#: So large that three steps change the loss by more than rounding does.
LEARNING_RATE = 1e-3
#: Parts of the tokens whose logits are made one after another where those of all do not fit.
PARTS = 8
#: Batch and tokens of a sequence that decide which attention is the fastest.
PROBE = (2, 8192)
Loss = Callable[[Tensor], Tensor]


class Training:
    """A model with random weights, its optimizer and a batch of random tokens; a call makes one step.

    Attributes
    ----------
    loss
        what a step takes the gradient of; by default that of the model.
    tokens
        (B, T + 1)
    """

    def __init__(self, architecture: Architecture, device: str, recompute: bool = False) -> None:
        self.device = device
        self.model = launches.random_model(architecture, device, torch.float32).requires_grad_(True)
        self.model.recompute = recompute
        on_gpu = device == "cuda"  # capturable: its number of steps is kept there too
        parameters = self.model.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True, capturable=on_gpu)
        self.loss: Loss = self.model.loss
        self.tokens = self.batch(1, 1)

    def batch(self, batch_size: int, context_length: int) -> Tensor:
        """Random tokens (B, T + 1)."""
        return launches.random_tokens(self.model.architecture, batch_size, context_length + 1, self.device)

    def mixed(self) -> Any:
        """The context in which a loss is computed: products in bfloat16."""
        return torch.autocast(self.device, torch.bfloat16)

    def __call__(self) -> Tensor:
        """One step; the loss () before it."""
        with self.mixed():
            loss = self.loss(self.tokens)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Within, steps run compiled code, for each batch and number of tokens that occurs.

        Code for any of them takes four times as long to compile as code for one.
        """
        before = self.loss
        with launches.compiled_blocks(self.model, "forward", dynamic=False):
            compiled = partial(torch.compile, dynamic=False, fullgraph=True, backend=launches.COMPILER)
            self.loss = partial(self.loss_of, compiled(_enter), compiled(_leave), 1)
            try:
                yield
            finally:
                self.loss = before

    @contextmanager
    def in_parts(self) -> Iterator[None]:
        """Within, logits are made for an eighth of the tokens at a time, and again in the backward pass."""
        before = self.loss
        enter, leave = before.args[:2] if isinstance(before, partial) else (_enter, _leave)
        self.loss = partial(self.loss_of, enter, leave, PARTS)
        try:
            yield
        finally:
            self.loss = before

    def loss_of(self, enter: Any, leave: Any, parts: int, tokens: Tensor) -> Tensor:
        """`LanguageModel.loss` by functions that are compiled apart, the last for a part of the tokens at a time."""
        model, inputs, targets = self.model, tokens[:, :-1], tokens[:, 1:].flatten()
        positions = torch.arange(inputs.shape[1], device=tokens.device)
        angles = rotary_angles(positions, model.rotary_width) if model.rotary_width else None
        place = Place(positions, angles, True)
        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)  # nothing here is random
        x = enter(model.embedding, inputs)
        for block in model.blocks:
            x = again(block, x, place) if model.recompute else block(x, place)
        pieces = zip(x.flatten(0, 1).chunk(parts), targets.chunk(parts), strict=True)
        if parts == 1:
            sums = [leave(model.norm, model.unembedding, *piece) for piece in pieces]
        else:
            sums = [again(leave, model.norm, model.unembedding, *piece) for piece in pieces]
        return torch.stack(sums).sum() / targets.numel()

    def state(self) -> list[Tensor]:
        """Weights and everything that the optimizer keeps, in a fixed order."""
        kept = [value for each in self.optimizer.state.values() for value in each.values()]
        return [*self.model.parameters(), *(value for value in kept if isinstance(value, Tensor))]

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What steps within change is as before afterwards; at least one step must have been made."""
        with torch.no_grad():
            kept = [tensor.detach().clone() for tensor in self.state()]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before in zip(self.state(), kept, strict=True):
                    tensor.copy_(before)


def _enter(embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    x = embedding(tokens)
    return x.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x


def _leave(norm: nn.Module, unembedding: nn.Linear, x: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of tokens x (N, d)."""
    return F.cross_entropy(unembedding(norm(x)).float(), targets, reduction="sum")


def choose_attention(architecture: Architecture, device: str) -> str:
    """The fastest attention of torch for training, forward and backward pass, at 8,192 tokens.

    Returns
    -------
    str
        of `launches.ATTENTIONS`; `default` where torch refuses these, or on a CPU; `none` without attention.
    """
    mixer = next((mixer for mixer in mixers(architecture) if isinstance(mixer, Attention)), None)
    if mixer is None:
        return "none"
    if device != "cuda":
        return "default"
    batch, length = PROBE
    shapes: Any = [(mixer.n_heads, mixer.d_qk), (mixer.n_kv_heads, mixer.d_qk), (mixer.n_kv_heads, mixer.d_hv)]
    of: Any = {"device": device, "dtype": torch.bfloat16, "requires_grad": True}
    q, k, v = (torch.randn(batch, heads, length, d, **of) for heads, d in shapes)
    grouped = mixer.n_heads != mixer.n_kv_heads

    def action() -> None:
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        torch.autograd.grad(h, (q, k, v), h)

    found = {}
    for name in launches.ATTENTIONS:
        with launches.attention(name):
            try:
                action()
            except RuntimeError:  # refused; torch says why in warnings
                continue
            found[name] = timing_of(action, device)["seconds_median"]
    return min(found, key=lambda name: found[name]) if found else "default"


def needed_bytes(training: Training, batch_size: int, context_length: int) -> float | None:
    """Bytes that a step would take, from steps of an eighth and a quarter of its tokens: memory is linear in them.

    None if these do not fit either, or on a CPU.
    """
    peaks = []
    for share in (8, 4):
        few = batch_size < share
        batch, length = (1, batch_size * context_length // share) if few else (batch_size // share, context_length)
        training.tokens = training.batch(batch, length)
        release(training.device)
        reset_peak(training.device)
        try:
            training()
        except torch.OutOfMemoryError:
            return None
        peaks.append(peak_bytes(training.device))
    eighth, quarter = peaks
    return None if eighth is None or quarter is None else eighth + 7.0 * (quarter - eighth)
