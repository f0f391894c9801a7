"""One step of training: forward and backward pass, clipped gradients, AdamW; eager, compiled, or as one CUDA graph.

Weights, gradients and moments are float32. On a GPU products and the residual stream are bfloat16 by autocast; on a CPU
everything is float32. Logits become float32 before the loss. Nothing in a step waits for the device: rate, loss and
norm of the gradients stay there. Needs torch.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn

from companion.architectures import MLSTM, Architecture
from companion.benchmarks.models.timed import release
from companion.errors import InputError
from companion.kernels.mlstm.checks import HEAD_SIZES
from companion.models import build
from companion.models.layers import Place, rotary_angles
from companion.models.model import Block
from companion.study.train.group import Group
from companion.study.train.recipe import Recipe

#: How a step is launched, the slowest first. `graph`: the compiled step captured in one CUDA graph.
LAUNCHES = ("eager", "compiled", "graph")
#: Backend of torch.compile; tests take one that generates no code.
COMPILER = "inductor"
#: Sizes of the last model that was compiled in this process: runs that differ in their rate or seed share the code.
_compiled_for: list[tuple[str, int, int, str]] = []
#: Numbers to which every gradient is rounded up in the flat buffer: whole lines of memory, so that all are aligned.
_ALIGNED = 64
#: As `torch.nn.utils.clip_grad_norm_`.
_NORM_EPSILON = 1e-6


class TrainingStep:
    """A model, its optimizer, and one batch; `make` does one step.

    Attributes
    ----------
    model
        weights as `LanguageModel.initialize` draws them on the CPU from the recipe's seed: the same on every device.
    tokens
        (b, T + 1), what the next step reads: the part of the batch of this process.
    rate
        () learning rate of the next step.
    outcome
        (2,) loss (mean over the batch, nats per token) before the last step, and norm of its gradients before clipping.
    launch
        of `LAUNCHES`: how steps are launched since `prepare`.

    Raises
    ------
    InputError
        if no layer is known for a mixer of the architecture, its heads are too narrow or too wide for the kernels of a
        GPU, or the batch is not divisible.
    """

    def __init__(
        self, recipe: Recipe, device: torch.device, group: Group | None = None, micro_batch: int | None = None
    ) -> None:
        self.recipe, self.device, self.group = recipe, device, group or Group.current()
        if device.type == "cuda":
            check_head_widths(recipe.architecture)
            torch._C._cuda_clearCublasWorkspaces()  # kept from run to run, while each run counts its own
            release(device.type)
        #: Bytes on the device of runs before in this process, which compiled code keeps.
        self.foreign_bytes = self._allocated()
        self.micro_batch = micro_batch_size(self.group.part(recipe.batch_size_seqs), micro_batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = build(recipe.architecture, dtype=torch.float32, device="cpu").to(device)
        sizes = (self.group.part(recipe.batch_size_seqs), recipe.context_length + 1)
        self.tokens = torch.zeros(sizes, dtype=torch.long, device=device)
        self.rate = torch.tensor(recipe.learning_rate, dtype=torch.float32, device=device)
        self.outcome = torch.zeros(2, device=device)
        self.optimizer = self._optimizer()
        self._gradients = self._flat_gradients()
        self.launch, self._pieces, self._replay = "eager", _pieces(compiled=False), None

    def _optimizer(self) -> torch.optim.AdamW:
        recipe, parameters = self.recipe, list(self.model.parameters())
        decays = [(recipe.weight_decay, [p for p in parameters if p.ndim >= 2])]
        decays += [(0.0, [p for p in parameters if p.ndim < 2])]
        groups: Any = [{"params": members, "weight_decay": decay} for decay, members in decays if members]
        on_gpu = self.device.type == "cuda"
        optimizer = torch.optim.AdamW(
            groups, lr=self.rate, betas=recipe.betas, eps=recipe.epsilon, fused=True, capturable=on_gpu
        )
        for p in parameters:  # now, not in the first step: a graph must find them, and a checkpoint fills them
            count = torch.zeros((), dtype=torch.float32, device=self.device)
            optimizer.state[p] = {"step": count, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        return optimizer

    def _flat_gradients(self) -> Tensor:
        """One buffer of which every gradient is a part; the last number is the loss, averaged with them."""
        parameters = list(self.model.parameters())
        lengths = [-(-p.numel() // _ALIGNED) * _ALIGNED for p in parameters]
        flat = torch.zeros(sum(lengths) + 1, device=self.device)
        for p, part in zip(parameters, flat[:-1].split(lengths), strict=True):
            p.grad = part[: p.numel()].view_as(p)
        return flat

    # ---- one step -------------------------------------------------------------------------------

    def make(self) -> None:
        """One step on `tokens` at `rate`; its `outcome` is not read from the device."""
        if self._replay is None:
            self._step()
        else:
            self._replay()

    def _step(self) -> None:
        flat = self._gradients
        flat.zero_()
        share = self.micro_batch / self.tokens.shape[0]
        for tokens in self.tokens.split(self.micro_batch):
            with self.mixed():
                loss = self.losses_of(tokens, self._pieces, "sum") / (tokens.shape[0] * self.recipe.context_length)
            (loss * share).backward()
            flat[-1] += loss.detach() * share
        with torch.no_grad():
            self.group.average_(flat)
            gradients = flat[:-1]
            norm = torch.linalg.vector_norm(gradients)
            gradients.mul_((self.recipe.clip_norm / (norm + _NORM_EPSILON)).clamp(max=1.0))
            self.outcome[0] = flat[-1]
            self.outcome[1] = norm
        self.optimizer.step()

    def mixed(self) -> Any:
        """The context of a forward pass: bfloat16 by autocast on a GPU."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def losses_of(self, tokens: Tensor, pieces: "Pieces", reduction: str) -> Tensor:
        """Cross-entropies, float32, of tokens (b, T + 1): their sum (), or with reduction `none` each, (b·T,)."""
        model, (enter, run_block, leave) = self.model, pieces
        inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
        positions = torch.arange(inputs.shape[1], device=tokens.device)
        angles = rotary_angles(positions, model.rotary_width) if model.rotary_width else None
        place = Place(positions, angles, True)
        x = enter(model.embedding, inputs)
        for block in model.blocks:
            x = run_block(block, x, place)
        return leave(model.norm, model.unembedding, x.flatten(0, 1), targets, reduction)

    @torch.no_grad()
    def sequence_losses(self, sequences: Tensor) -> Tensor:
        """Mean loss of every sequence of (n, T + 1), float64 (n,) on the CPU."""
        found = []
        for tokens in sequences.split(self.micro_batch):
            with self.mixed():
                losses = self.losses_of(tokens, _pieces(compiled=False), "none")
            found.append(losses.view(tokens.shape[0], -1).mean(1, dtype=torch.float64))
        return torch.cat(found).cpu()

    # ---- its state ------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Weights and moments by name, the tensors themselves."""
        found = {}
        for name, p in self.model.named_parameters():
            found[f"weight {name}"] = p.detach()
            found |= {f"{kind} {name}": tensor for kind, tensor in self.optimizer.state[p].items()}
        return found

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Put the values of a `state` in place of one's own.

        Raises
        ------
        InputError
            if names or shapes differ.
        """
        own = self.state()
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in state.items()}:
            raise InputError("state: its tensors are not those of this model")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    # ---- how it is launched ---------------------------------------------------------------------

    def prepare(self, launch: str) -> None:
        """Compile and capture what a launch needs; weights and moments are the same afterwards.

        A step that cannot be captured is launched compiled, one that cannot be compiled eagerly, with a warning that
        says why.
        """
        held = self._allocated()
        if launch != "eager":
            self._forget_other_sizes()
        self.foreign_bytes -= held - self._allocated()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)  # what follows is the memory of this run
        elif launch == "eager":
            return
        # on the host: a copy on the device would count as memory that a run takes
        before = {name: tensor.to("cpu", copy=True) for name, tensor in self.state().items()}
        try:
            if launch != "eager" and self._tried("compiled", self._compile) and launch == "graph":
                self._tried("graph", self._capture)
            if self.launch == "eager":
                self._step()  # finds kernels; a failed compilation may have left a half step behind
        finally:
            self.load(before)

    def _allocated(self) -> int:
        """Bytes of tensors of this process on the device."""
        return int(torch.cuda.memory_allocated(self.device)) if self.device.type == "cuda" else 0

    def _tried(self, launch: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._replay = None
            if launch == "compiled":
                self._pieces = _pieces(compiled=False)
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            warnings.warn(f"steps are launched {self.launch}: {launch} failed: {reason}", stacklevel=4)
            return False
        self.launch = launch
        return True

    def _forget_other_sizes(self) -> None:
        """Drop code for other sizes: it counts against the limit of the compiler, and keeps memory of its run."""
        sizes = (repr(self.recipe.architecture), self.recipe.context_length, self.micro_batch, str(self.device))
        if _compiled_for != [sizes]:
            torch._dynamo.reset()
            release(self.device.type)
            _compiled_for[:] = [sizes]

    def _compile(self) -> None:
        self._pieces = _pieces(compiled=True)
        with _compiler_settings():
            for _ in range(2):
                self._step()

    def _capture(self) -> None:
        if self.device.type != "cuda":
            raise RuntimeError(f"there are no CUDA graphs on a {self.device.type}")
        from companion.benchmarks.kernels.timing import graph_of

        self._replay = graph_of([self._step]).replay


def micro_batch_size(sequences: int, micro_batch: int | None) -> int:
    """Sequences of one forward and backward pass, for a part of a batch.

    Raises
    ------
    InputError
        if it does not divide them.

    Examples
    --------
    >>> micro_batch_size(64, None), micro_batch_size(64, 16)
    (64, 16)
    """
    if micro_batch is None:
        return sequences
    if micro_batch < 1 or sequences % micro_batch:
        raise InputError(f"micro_batch: {micro_batch} does not divide the {sequences} sequences of a process")
    return micro_batch


def check_head_widths(architecture: Architecture) -> None:
    """Raise an InputError unless the mLSTM kernels take the heads of an architecture.

    On a GPU the other forms of the mLSTM have sums that are not deterministic.
    """
    least, most = HEAD_SIZES
    for mixer, number in architecture.layers:
        for name in ("d_qk", "d_hv") if isinstance(mixer, MLSTM) and number else ():
            width = int(getattr(mixer, name))
            if not least <= width <= most:
                raise InputError(
                    f"{name}: heads of width {width}; on a GPU an mLSTM is trained with widths from {least} to {most}: "
                    "change n_heads"
                )


#: Functions of the embedding, of a block, and of the last norm, logits and loss.
Pieces = tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]


def _pieces(*, compiled: bool) -> Pieces:
    """The pieces of a forward pass; equal blocks share the compiled code of one."""
    if not compiled:
        return _enter, _block, _leave
    wrap: Any = partial(torch.compile, dynamic=False, fullgraph=True, backend=COMPILER)
    # not the embedding: of its gradient the compiler makes a sum over the tokens of a row one after another where it
    # must be deterministic, and torch itself one in parts
    return _enter, wrap(_block), wrap(_leave)


@contextmanager
def _compiler_settings() -> Iterator[None]:
    """The compiler times no candidates against each other, which could choose others the next time."""
    import torch._inductor.config as inductor  # here: eager steps do without

    settings: Any = inductor
    with ExitStack() as stack:
        stack.enter_context(torch._dynamo.config.patch(recompile_limit=32))
        if hasattr(settings, "deterministic"):  # torch 2.9 or later
            stack.enter_context(settings.patch(deterministic=True))
        yield


def _enter(embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    x = embedding(tokens)
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def _block(block: Block, x: Tensor, place: Place) -> Tensor:
    return Block.forward(block, x, place)


def _leave(norm: nn.Module, unembedding: nn.Linear, x: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return F.cross_entropy(unembedding(norm(x)).float(), targets, reduction=reduction)
