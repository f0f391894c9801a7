"""What counts as a FLOP: conventions as frozen objects.

Two papers that print "C" rarely mean the same number. A `Convention` says which operations are counted and at what
price, so that one function counts under all of them and a reader can add another with `dataclasses.replace`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from companion.accounting.breakdown import COMPONENTS
from companion.errors import InputError
from companion.numeric import Numeric

#: FLOPs of one head over one chunk, by part: `(chunk_size, d_qk, d_hv, causal_factor) -> {part: FLOPs}`.
MLSTMChunkCount = Callable[[Numeric, Numeric, Numeric, float], dict[str, Numeric]]


def mlstm_chunk_paper(chunk_size: Numeric, d_qk: Numeric, d_hv: Numeric, causal_factor: float) -> dict[str, Numeric]:
    """Chunkwise mLSTM as counted for the runs of arXiv 2510.02228: the forward pass, one head, one chunk.

    Every exp, max, mask and abs counts 1, and the intra-chunk products count in full: `causal_factor` is not used.

    Parameters
    ----------
    chunk_size, d_qk, d_hv
        L, and the widths of one head.
    causal_factor
        ignored; the argument exists because every count of this kind takes it.

    Returns
    -------
    dict
        FLOPs of `state` (the recurrence over chunks) and `output` (inside the chunk).
    """
    L, qk, hv = chunk_size, d_qk, d_hv
    gates = L * (L + 1) / 2 + 2 * L
    state = gates + (5 + 5 * L) + (2 * qk * hv + 4 * L * qk * hv + 3 * L * qk) + (2 * qk + 4 * L * qk)
    output = L * (L + 1) / 2 + L**2 * (10 + 2 * qk + 2 * hv) + 2 * L + (2 * L + 5 * L + 2 * L * hv)
    return {"state": state, "output": output}


def mlstm_chunk_tfla(chunk_size: Numeric, d_qk: Numeric, d_hv: Numeric, causal_factor: float) -> dict[str, Numeric]:
    """The authors' later, tighter count (arXiv 2503.14376 and 2510.02228): the forward pass, one head, one chunk.

    Parameters
    ----------
    chunk_size, d_qk, d_hv
        L, and the widths of one head.
    causal_factor
        share of the L × L matrix that is computed: 1 computes all of it, 0.5 skips the masked half.

    Returns
    -------
    dict
        FLOPs of `state`, `intra` (inside the chunk), `inter` (queries against the state) and `combination`.
    """
    L, qk, hv = chunk_size, d_qk, d_hv
    gates = L * (L + 1) / 2 + 2 * L
    state = gates + (5 + 4 * L) + (2 * qk * hv + 2 * L * qk * hv + L * qk) + (2 * qk + 2 * L * qk)
    intra = causal_factor * (5 * L**2 + 2 * L + 2 * L**2 * (qk + hv) + 3 * L**2) + gates
    return {"state": state, "intra": intra, "inter": 2 * L * qk * hv + 3 * L * qk, "combination": 2 * L * hv + 4 * L}


def mlstm_chunk_products(chunk_size: Numeric, d_qk: Numeric, d_hv: Numeric, causal_factor: float) -> dict[str, Numeric]:
    """Products of matrices alone, those of `mlstm_chunk_tfla`: the forward pass, one head, one chunk.

    Parameters
    ----------
    chunk_size, d_qk, d_hv
        L, and the widths of one head.
    causal_factor
        share of the L × L matrix that is computed.

    Returns
    -------
    dict
        FLOPs of `state`, `intra` and `inter`.
    """
    between = 2 * chunk_size * d_qk * d_hv
    return {"state": between, "intra": causal_factor * 2 * chunk_size**2 * (d_qk + d_hv), "inter": between}


@dataclass(frozen=True, kw_only=True)
class Convention:
    """Which operations count, and at what price.

    Make your own with `dataclasses.replace(PAPER, name="mine", attention_causal_factor=1.0)`.

    Raises
    ------
    InputError
        if a factor is outside the range its comment gives.
    """

    name: str
    description: str
    source: str
    #: "layers" adds up the operations of every layer; "6ND" prices every weight at 2 FLOPs forward.
    rule: Literal["layers", "6ND"] = "layers"
    #: under "6ND": the components whose weights count (Kaplan et al. leave the embedding out).
    counted_weights: tuple[str, ...] = COMPONENTS
    #: share of the T × T attention matrix that is counted, from 0 to 1: 0.5 halves it for the causal mask.
    attention_causal_factor: float = 0.5
    #: FLOPs of the softmax for every score of the T × T matrix (before the causal factor), 0 or more.
    attention_softmax_flops: float = 5.0
    #: FLOPs of the chunkwise mLSTM cell.
    mlstm_chunk: MLSTMChunkCount = mlstm_chunk_paper
    #: share of the L × L intra-chunk matrix that is counted, from 0 to 1, if `mlstm_chunk` uses it.
    mlstm_causal_factor: float = 1.0
    #: L: tokens in one chunk of the mLSTM; the paper trains with 64.
    chunk_size: int = 64
    #: the embedding look-up as a matrix product with one-hot rows, 2·d·V per token.
    count_embedding: bool = False
    #: FLOPs per inner unit of SwiGLU for the activation and the gate.
    ffn_elementwise_flops: float = 2.0
    #: FLOPs per hidden unit for multiplying with the output gate.
    output_gate_elementwise_flops: float = 1.0
    #: FLOPs per element that a norm scales; no convention here counts norms, about 4 is what RMSNorm takes.
    norm_flops: float = 0.0
    #: backward over forward: two matrix products for each one forward.
    backward_factor: float = 2.0

    def __post_init__(self) -> None:
        for field in ("attention_causal_factor", "mlstm_causal_factor"):
            if not 0 <= getattr(self, field) <= 1:
                raise InputError(f"convention {self.name}: {field} {getattr(self, field)} is not between 0 and 1")
        for field in (
            "attention_softmax_flops",
            "ffn_elementwise_flops",
            "output_gate_elementwise_flops",
            "norm_flops",
            "backward_factor",
        ):
            if not getattr(self, field) >= 0:
                raise InputError(f"convention {self.name}: {field} {getattr(self, field)} is negative")
        if not (isinstance(self.chunk_size, int) and self.chunk_size > 0):
            raise InputError(f"convention {self.name}: chunk_size {self.chunk_size} is not a positive whole number")
        if self.rule not in ("layers", "6ND"):
            raise InputError(f"convention {self.name}: rule {self.rule!r} is neither 'layers' nor '6ND'")
        if unknown := set(self.counted_weights) - set(COMPONENTS):
            raise InputError(f"convention {self.name}: no component {', '.join(sorted(unknown))}")


PAPER = Convention(
    name="paper",
    description="every layer; causal attention halved; mLSTM with the full intra-chunk matrix; look-up, norms free",
    source="arXiv 2510.02228; the convention behind the column train_flops of data/runs.csv",
)
TFLA = Convention(
    name="tfla",
    description="as paper, with the tighter mLSTM count and a causal factor for its intra-chunk matrix",
    source="arXiv 2510.02228, over-training table; its slopes are reproduced with the causal factor at 1",
    mlstm_chunk=mlstm_chunk_tfla,
)
# Appendix F of arXiv 2203.15556 writes embedding and logits as products that count; its Table A4 disagrees with that
# text: its ratios to 6ND are nearer to a count with neither. We follow the text.
CHINCHILLA = Convention(
    name="chinchilla",
    description="attention not halved, softmax 3 per score, embedding as a matrix product, no elementwise products",
    source="arXiv 2203.15556, appendix F as written (its Table A4 disagrees); the mLSTM cell as under paper",
    attention_causal_factor=1.0,
    attention_softmax_flops=3.0,
    count_embedding=True,
    ffn_elementwise_flops=0.0,
    output_gate_elementwise_flops=0.0,
)
SIX_ND = Convention(
    name="6ND",
    description="6 FLOPs per weight and token; no attention, no recurrence",
    source="arXiv 2001.08361, section 2.1, with all weights counted in N",
    rule="6ND",
)
#: What `torch.utils.flop_counter` sees in a running model: products of matrices, masked pairs too.
PRODUCTS = Convention(
    name="products",
    description="products of matrices alone, masked pairs too",
    source="torch.utils.flop_counter on the models of companion.models",
    attention_causal_factor=1.0,
    attention_softmax_flops=0.0,
    mlstm_chunk=mlstm_chunk_products,
    ffn_elementwise_flops=0.0,
    output_gate_elementwise_flops=0.0,
)
#: Those that a count of training may be stated in.
CONVENTIONS: dict[str, Convention] = {c.name: c for c in (PAPER, TFLA, CHINCHILLA, SIX_ND)}


def get_convention(convention: str | Convention) -> Convention:
    """The convention of that name, or the object itself.

    Raises
    ------
    InputError
        if there is no convention of that name.

    Examples
    --------
    >>> get_convention("paper").chunk_size
    64
    """
    if isinstance(convention, Convention):
        return convention
    if convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} is not known; there are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention]
