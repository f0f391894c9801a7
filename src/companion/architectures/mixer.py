"""What a sequence mixer says of itself: parameters, FLOPs, cache or state, traffic, terms of its times.

All methods are per layer. Numbers may be integers, arrays that broadcast together, real numbers (shapes of a family) or
symbols (`companion.accounting.symbolic`): an implementation adds, multiplies and divides, and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn, Protocol

from companion.architectures.shapes import Shape
from companion.errors import InputError
from companion.numeric import Numeric

Kind = Literal["compute", "memory", "latency", "fixed"]


@dataclass(frozen=True)
class Term:
    """One term of a time: its name, what limits it (and so how it scales to other hardware), its unit, its meaning."""

    name: str
    kind: Kind
    unit: str
    meaning: str


PRODUCTS = Term(
    "product_flops", "compute", "FLOP", "FLOPs of the prefill but those of attention's core and unembedding"
)
FLOPS = Term("flops", "compute", "FLOP", "all FLOPs of the prefill but the unembedding")
TOKEN_LAYERS = Term("token_layers", "memory", "token·layer", "tokens times layers: elementwise work and launches")
LAYERS = Term("layers", "fixed", "layer", "overhead per layer")
PASSES = Term("passes", "fixed", "pass", "overhead per pass")
WEIGHTS = Term("weight_bytes", "memory", "byte", "weights read once")
ACTIVATIONS = Term("activation_bytes", "memory", "byte", "activations and logits")
CACHE = Term("cache_bytes", "memory", "byte", "keys and values read, and the new ones written")
STATE = Term("state_bytes", "memory", "byte", "state read and written")
BATCHED = Term("batched_layers", "fixed", "layer", "further overhead per layer for a batch above 1")


class Counting(Protocol):
    """What a mixer asks of a convention (`companion.accounting.Convention` has it all, and says what it means)."""

    @property
    def attention_causal_factor(self) -> float: ...
    @property
    def attention_softmax_flops(self) -> float: ...
    @property
    def mlstm_causal_factor(self) -> float: ...
    @property
    def chunk_size(self) -> int: ...
    @property
    def output_gate_elementwise_flops(self) -> float: ...
    @property
    def mlstm_chunk(self) -> Callable[[Numeric, Numeric, Numeric, float], dict[str, Any]]: ...


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """A sequence mixer with `n_heads` heads, of width `d_qk` for queries and keys and `d_hv` for values.

    A subclass writes every method of which a count makes use. One that it lacks raises an InputError with the names of
    mixer and method; no mixer is ever counted by the formula of another.
    """

    #: its name in messages.
    name: ClassVar[str] = "mixer"
    #: what one sequence keeps between steps, in words.
    keeps: ClassVar[str] = "state"
    #: which bytes per number that takes: `cache` or `state` of a `companion.accounting.inference.Precision`.
    kept_as: ClassVar[Literal["cache", "state"]] = "state"
    #: terms of its times by quantity (`ttft`, `step_time`); empty where nobody has timed it.
    runtime_terms: ClassVar[dict[str, tuple[Term, ...]]] = {}

    n_heads: Shape
    d_qk: Shape
    d_hv: Shape

    @property
    def hidden_width(self) -> Numeric:
        """Width of all heads together, H·d_hv: what the output projection reads."""
        return self.n_heads * self.d_hv

    # ---- parameters -----------------------------------------------------------------------------

    def qkv_width(self) -> Numeric:
        """Numbers in the queries, keys and values of one token."""
        self._lacks("qkv_width")

    def projection_params(self, d_model: Numeric) -> Numeric:
        """Weights of queries, keys, values, gates and output projection."""
        self._lacks("projection_params")

    def core_params(self, d_model: Numeric) -> Numeric:
        """Weights of the mixer's core, such as decays and short convolutions."""
        self._lacks("core_params")

    def output_gate_params(self, d_model: Numeric) -> Numeric:
        """Weights of the output gate."""
        self._lacks("output_gate_params")

    def norm_params(self) -> Numeric:
        """Weights of the mixer's own norms, beside those of the block."""
        self._lacks("norm_params")

    # ---- FLOPs of a forward pass ----------------------------------------------------------------

    def projection_flops(self, d_model: Numeric) -> Numeric:
        """FLOPs of the projections per token."""
        self._lacks("projection_flops")

    def output_gate_flops(self, d_model: Numeric, convention: Counting) -> Numeric:
        """FLOPs of the output gate per token."""
        self._lacks("output_gate_flops")

    def norm_width(self) -> Numeric:
        """Numbers per token that the mixer's own norms scale."""
        self._lacks("norm_width")

    def core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        """FLOPs of the core for one sequence of T tokens."""
        self._lacks("core_flops")

    def step_core_flops(self, context_length: Numeric, convention: Counting) -> Numeric:
        """FLOPs of the core for one generated token, the last of T."""
        self._lacks("step_core_flops")

    def core_flops_per_token(self, context_length: Numeric, convention: Counting) -> Numeric:
        """FLOPs of the core over T, for any real T at which `least_context` is a lower bound and chunks are whole."""
        self._lacks("core_flops_per_token")

    def growth(self, convention: Counting) -> Numeric | None:
        """FLOPs of the core per token and token of context; 0 if they do not grow, None if they stop to grow."""
        self._lacks("growth")

    def least_context(self, convention: Counting) -> int:
        """Tokens of the shortest sequence that the forward count takes: 1, or one chunk."""
        self._lacks("least_context")

    # ---- cache or state, traffic, activations ---------------------------------------------------

    def cache_numbers(self, context_length: Numeric) -> Numeric:
        """Numbers that one sequence of T tokens keeps."""
        self._lacks("cache_numbers")

    def prefill_cache_traffic(self, context_length: Numeric, convention: Counting) -> Numeric:
        """Numbers of cache or state moved by a prefill of T tokens."""
        self._lacks("prefill_cache_traffic")

    def step_cache_traffic(self, context_length: Numeric) -> Numeric:
        """Numbers of cache or state moved by one generated token, the last of T."""
        self._lacks("step_cache_traffic")

    def activations_per_token(self, d_model: Numeric) -> Numeric:
        """Numbers read and written per token by products, norms and gates, but for input and output of width d."""
        self._lacks("activations_per_token")

    # ---- times ----------------------------------------------------------------------------------

    def step_features(
        self, context_length: Numeric, batch_size: Numeric, num_multiprocessors: int
    ) -> dict[str, Numeric]:
        """Sizes of terms of a step that only this mixer has, by name, for one layer."""
        self._lacks("step_features")

    def _lacks(self, method: str) -> NoReturn:
        raise InputError(f"mixer {self.name} has no {method}: write this method of {type(self).__name__} to count it")


def over_chunks(one_chunk: Callable[[Numeric], Numeric], context_length: Numeric, chunk_size: Numeric) -> Numeric:
    """Sum of `one_chunk(tokens)` over the chunks of T tokens, of which the last may be shorter."""
    full_chunks = context_length // chunk_size
    tail = context_length % chunk_size
    # the count of an empty chunk is not zero (it holds the state's own decay), hence the mask
    return full_chunks * one_chunk(chunk_size) + 1 * (tail != 0) * one_chunk(tail)


def ceil_div(number: Numeric, divisor: Numeric) -> Numeric:
    """Number of chunks that hold all tokens, the last one shorter; numbers, arrays and symbols."""
    return -(-number // divisor)
