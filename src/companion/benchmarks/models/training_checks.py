"""Whether a step of training is right: its loss and gradients against plain torch, its graph against its launches.

The reference is plain torch in float32 with the same weights: the chunkwise mLSTM of torch, attention by its formula.
What it differs from the same in bfloat16 (autocast) is the error that the dtype brings; a step may have 1.5 times that.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from companion.benchmarks.models.gate import finite, plain_torch
from companion.benchmarks.models.training_step import Training

#: Batch and tokens of a sequence that is compared: no whole number of chunks.
BATCH, LENGTH = 2, 270
#: Error that a step may have, as a multiple of that of plain torch in bfloat16.
FACTOR = 1.5
#: Errors below these count as none: a rounding of bfloat16 in a gradient, and in the mean of 540 losses.
GRADIENT_FLOOR, LOSS_FLOOR = 2.0**-8, 2.0**-11
#: No error above this is right, whatever rounding does.
LIMIT = 0.5
#: Difference between the losses of graph and launches, in parts of what three steps change; steps add gradients in no
#: fixed order.
GRAPH_TOLERANCE = 0.05
NUM_STEPS = 3


class Gradients(NamedTuple):
    """Loss, and gradients of all parameters, by name."""

    loss: float
    gradients: dict[str, Tensor]


class Reference(NamedTuple):
    """Plain torch on the same weights and tokens (B, T + 1): in float32, and in bfloat16 by autocast."""

    weights: dict[str, Tensor]
    tokens: Tensor
    exact: Gradients
    rounded: Gradients


def gradients_of(training: Training, loss: Callable[[Tensor], Tensor], tokens: Tensor, mixed: bool) -> Gradients:
    """Loss and gradients of the weights as they are; float32, or as a step computes them (`mixed`)."""
    with training.mixed() if mixed else nullcontext():
        value = loss(tokens)
    value.backward()
    found = {name: parameter.grad for name, parameter in training.model.named_parameters()}
    training.optimizer.zero_grad(set_to_none=True)
    return Gradients(
        float(value.detach()), {name: gradient for name, gradient in found.items() if gradient is not None}
    )


def reference_of(training: Training) -> Reference:
    """The reference of a model whose blocks are not compiled."""
    weights = {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()}
    tokens = training.batch(BATCH, LENGTH)
    with plain_torch():
        exact, rounded = (gradients_of(training, training.model.loss, tokens, mixed) for mixed in (False, True))
    return Reference(weights, tokens, exact, rounded)


def compare(training: Training, reference: Reference) -> list[dict[str, Any]]:
    """The step's loss and gradients against the reference: a check each, and of gradients the worst kind of parameters.

    The model gets the weights of the reference.

    Returns
    -------
    list
        `quantity`, `error` and `reference_error` (relative to float32), `tolerance`, `verdict`, `reason`.
    """
    with torch.no_grad():
        for name, parameter in training.model.named_parameters():
            parameter.copy_(reference.weights[name])
    found = gradients_of(training, training.loss, reference.tokens, mixed=True)
    exact, rounded = reference.exact, reference.rounded
    error, usual = (abs(each.loss - exact.loss) / abs(exact.loss) for each in (found, rounded))
    rows = [_check("loss", error, usual, LOSS_FLOOR)]
    names = list(exact.gradients)
    rows.append(_gradient_check("gradients", names, found, reference))
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(kind_of(name), []).append(name)
    each = [_gradient_check(f"gradients of {kind}", members, found, reference) for kind, members in kinds.items()]
    rows.append(max(each, key=lambda row: row["error"] / row["tolerance"]))
    return rows


def kind_of(parameter: str) -> str:
    """Name of a parameter without the number of its block.

    Examples
    --------
    >>> kind_of("blocks.3.mixer.out.weight")
    'mixer.out.weight'
    """
    first, _, rest = parameter.partition(".")
    return rest.partition(".")[2] if first == "blocks" else parameter


def losses_of(step: Callable[[], Tensor], number: int = NUM_STEPS) -> list[float]:
    """Losses before each of some steps."""
    return [float(step()) for _ in range(number)]


def compare_graph(launched: list[float], replayed: list[float], change: float) -> dict[str, Any]:
    """Losses of a graph against those of the launches that it holds, from the same weights, in parts of `change`."""
    error = max(abs(a - b) for a, b in zip(launched, replayed, strict=True)) / max(change, 1e-9)
    row = _check(f"losses of {len(replayed)} replays", error, 0.0, GRAPH_TOLERANCE)
    if row["verdict"] == "fail":
        row["reason"] += f"; launched {', '.join(map(str, launched))}; replayed {', '.join(map(str, replayed))}"
    return row


def plain_loss(training: Training) -> float:
    """The loss of the tokens as they are, launched kernel by kernel, an eighth of the sequences at a time."""
    tokens, model = training.tokens, training.model
    pieces = tokens.chunk(min(len(tokens), 8))
    with torch.no_grad(), training.mixed(), torch.compiler.set_stance("force_eager"):
        return sum(float(model.loss(piece)) * len(piece) for piece in pieces) / len(tokens)


def compare_launches(compiled: float, plain: float) -> dict[str, Any]:
    """The loss of a compiled step against that of plain launches, relative."""
    return _check("loss of the timed shape", abs(compiled - plain) / abs(plain), 0.0, LOSS_FLOOR)


def _gradient_check(quantity: str, names: list[str], found: Gradients, reference: Reference) -> dict[str, Any]:
    exact = [reference.exact.gradients[name] for name in names]
    errors: list[float] = []
    for each in (found, reference.rounded):
        missing = [name for name in names if name not in each.gradients]
        if missing:
            return _check(f"{quantity}: none of {missing[0]}", float("inf"), 0.0, GRADIENT_FLOOR)
        differences = [each.gradients[name] - right for name, right in zip(names, exact, strict=True)]
        errors.append(_norm(differences) / max(_norm(exact), 1e-30))
    error, usual = errors
    return _check(quantity, error, usual, GRADIENT_FLOOR)


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.float().norm() for tensor in tensors]).norm())


def _check(quantity: str, error: float, reference_error: float, floor: float) -> dict[str, Any]:
    tolerance = min(max(FACTOR * reference_error, floor), LIMIT)
    right = error <= tolerance
    return {
        "quantity": quantity,
        "error": finite(error),
        "reference_error": reference_error,
        "tolerance": tolerance,
        "verdict": "pass" if right else "fail",
        "reason": "" if right else f"error {error:.3g}, allowed {tolerance:.3g}",
    }
