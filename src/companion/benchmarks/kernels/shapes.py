"""Shapes at which mLSTM kernels are timed, and their names. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from companion.errors import InputError

#: Tokens of all sequences together.
NUM_TOKENS = 65536
#: The first of these is timed first: the length of the target.
CONTEXT_LENGTHS = (8192, 2048, 32768, 1024, 4096, 16384, 65536)
#: H, d_qk and d_hv of a layer of a small model, whose calls the host takes longer to launch than the GPU to compute.
SMALL_LAYER = (4, 32, 64)
#: H, d_qk, d_hv.
HEADS = ((8, 256, 512), (16, 128, 256), (8, 128, 128))
#: Heads as narrow as those of small models, at the lengths where they were slowest.
NARROW_HEADS, NARROW_LENGTHS = (32, 64, 128), (8192, 1024, 65536)
BATCH_SIZES = (64, 1, 16, 256, 4)


@dataclass(frozen=True)
class Shape:
    """Sizes of a timed cell; `context_length` is 1 for a step."""

    n_heads: int
    d_qk: int
    d_hv: int
    batch_size: int
    context_length: int = 1

    @property
    def heads(self) -> str:
        """H, d_qk and d_hv as one word."""
        return f"{self.n_heads}x{self.d_qk}x{self.d_hv}"

    @property
    def size(self) -> str:
        """The context of a sequence, the batch of a step."""
        return f"T{self.context_length}" if self.context_length > 1 else f"B{self.batch_size}"

    @property
    def name(self) -> str:
        """Heads and size."""
        return f"{self.heads}-{self.size}"


def sequence_shapes(quick: bool = False) -> tuple[Shape, ...]:
    """65,536 tokens in sequences of every length, most wanted first; `quick`: one shape."""
    cells = [(heads, length) for heads in HEADS for length in CONTEXT_LENGTHS]
    cells += [(NARROW_HEADS, length) for length in NARROW_LENGTHS]
    shapes = [Shape(*heads, batch_size=NUM_TOKENS // length, context_length=length) for heads, length in cells]
    return tuple(shapes[:1] if quick else shapes)


def step_shapes(quick: bool = False) -> tuple[Shape, ...]:
    """Every batch of steps; `quick`: two batches of the first heads."""
    shapes = [Shape(*heads, batch_size=batch) for heads in HEADS for batch in BATCH_SIZES]
    return tuple(shapes[:2] if quick else shapes)


def host_shapes() -> tuple[Shape, ...]:
    """What the host's time is measured at: one sequence."""
    return (Shape(*SMALL_LAYER, batch_size=1, context_length=1024),)


def first_call_shapes(quick: bool = False) -> tuple[Shape, ...]:
    """What is compiled in a process of its own: all heads; `quick`: the first."""
    shapes = [Shape(*heads, batch_size=8, context_length=1024) for heads in (*HEADS, NARROW_HEADS, SMALL_LAYER)]
    return tuple(shapes[:1] if quick else shapes)


def select_shapes(shapes: Sequence[Shape], names: Sequence[str] | None) -> tuple[Shape, ...]:
    """Shapes with one of these names, or of these heads (`8x256x512`) and sizes (`T8192`, `B64`); all without names."""
    if not names:
        return tuple(shapes)
    everything = (*sequence_shapes(), *step_shapes(), *host_shapes())
    heads = {shape.heads for shape in everything} & set(names)
    sizes = {shape.size for shape in everything} & set(names)

    def wanted(shape: Shape) -> bool:
        if shape.name in names:
            return True
        fits = (not heads or shape.heads in heads) and (not sizes or shape.size in sizes)
        return bool(heads or sizes) and fits

    return tuple(shape for shape in shapes if wanted(shape))


def check_names(names: Sequence[str] | None, known: set[str]) -> None:
    """An InputError for the first name that selects nothing."""
    for name in names or ():
        if name not in known:
            raise InputError(f"case {name!r} is not known (see --list)")
