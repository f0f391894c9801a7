"""The cells of the training suite: a model is made and checked once, then timed in each. Needs torch."""

import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from companion.accounting.flops import count_flops
from companion.accounting.params import num_params
from companion.architectures import Architecture
from companion.benchmarks.models import launches
from companion.benchmarks.models.models import shapes_of
from companion.benchmarks.models.serving import FAULTS, DeviceFault, why
from companion.benchmarks.models.session import Session, say
from companion.benchmarks.models.timed import does_not_fit, free_bytes, peak_bytes, release, reset_peak, timing_of
from companion.benchmarks.models.training_checks import (
    NUM_STEPS,
    Reference,
    compare,
    compare_graph,
    compare_launches,
    losses_of,
    plain_loss,
    reference_of,
)
from companion.benchmarks.models.training_step import OPTIMIZER, PARTS, Training, choose_attention, needed_bytes

PRECISION = "weights float32, products bfloat16"
#: Bytes a parameter of weights, gradients and both moments of AdamW.
BYTES_PER_PARAMETER = 16
Fields = dict[str, Any]


def measure(session: Session, architecture: Architecture, cells: Sequence[Fields]) -> None:
    """Check and time one model in cells that `companion.benchmarks.models.training.fields_of` describes.

    Results are kept in the session.

    Raises
    ------
    DeviceFault
        if the GPU reports a fault: then nothing more can be measured in this process.
    """
    torch.compiler.reset()
    common: Fields = {"shapes": shapes_of(architecture), "optimizer": OPTIMIZER, "precision": PRECISION}
    release(session.device)
    needed, free = BYTES_PER_PARAMETER * int(num_params(architecture)), free_bytes(session.device)
    if needed > free:
        for cell in cells:
            session.add({**cell, **common, "skipped": does_not_fit(needed, free)})
        return
    common["attention"] = choose_attention(architecture, session.device)
    training = Training(architecture, session.device, recompute=cells[0]["recompute"])
    with launches.attention(common["attention"]):
        model = _Model(session, training, common, reference_of(training))
        eager = [cell for cell in cells if cell["launch"] == "eager"]
        right = bool(eager) and model.passes(eager[0])
        model.compiled([cell for cell in cells if cell["launch"] != "eager"])
        model.reference = None
        for cell in eager if right else ():
            model.time(cell, model.warm)


class _Model:
    """One model in all its cells, which share its weights and its compiled code."""

    def __init__(self, session: Session, training: Training, common: Fields, reference: Reference) -> None:
        self.session, self.training, self.common = session, training, common
        self.reference: Reference | None = reference
        self.change: float | None = None  # of the loss in three steps, once it is known
        self.peak: int | None = None

    def compiled(self, cells: Sequence[Fields]) -> None:
        """Compiled steps. Every shape is compiled by itself, so its loss is checked by itself."""
        if not cells:
            return
        with self.training.compiled():
            try:
                right = self.passes(cells[0])
            except RuntimeError as error:
                for cell in cells:
                    self.session.add({**cell, **self.common, "skipped": self.failure(error)})
                return
            if right:
                self.reference = None  # its memory must not be counted as that of a step
                release(self.session.device)
                for cell in cells:
                    self.time(cell, partial(self.captured if cell["launch"].endswith("graph") else self.first, cell))

    def passes(self, cell: Fields) -> bool:
        """Whether loss and gradients of the way in which a cell is launched are right; the checks become results."""
        assert self.reference is not None
        launch = cell["launch"].removesuffix(" graph")
        rows = compare(self.training, self.reference)
        for row in rows:
            self.check({**cell, "launch": launch}, row)
        return all(row["verdict"] == "pass" for row in rows)

    def check(self, cell: Fields, row: Fields) -> None:
        self.session.total += 1
        same = {name: cell[name] for name in ("model", "size", "implementation", "launch", "vocabulary")}
        self.session.add({"part": "check", **same, **self.common, **row})

    def time(self, cell: Fields, prepare: Callable[[], Callable[[], Any] | None]) -> None:
        """Time one cell; `prepare` gives the action, after it has run, or None if it is wrong.

        Where the logits of all tokens do not fit, those of an eighth are made at a time.
        """
        if self.session.out_of_time():
            return
        self.training.tokens = self.training.batch(cell["batch_size"], cell["context_length"])
        free = self.cleared()
        found = self.attempt(prepare)
        parts = 1
        if found is None:
            self.cleared()
            with self.training.in_parts():
                found, parts = self.attempt(prepare), PARTS
        if found is None:
            found = {"skipped": self.reason(cell, free)}
        elif "seconds_median" in found:
            found["loss_parts"] = parts
            seconds, tokens = found["seconds_median"], cell["tokens_per_step"]
            counted = count_flops(self.training.model.architecture, cell["context_length"]).train_flops(tokens)
            found |= {"tokens_per_s": round(tokens / seconds, 1), **self.session.shares(seconds, float(counted), 0.0)}
            found |= {"bytes": None, "share_of_copy_bandwidth": None}
        if found:
            self.session.add({**cell, **self.common, **found})

    def attempt(self, prepare: Callable[[], Callable[[], Any] | None]) -> Fields | None:
        """Times and memory of an action; None if it does not fit, nothing if it is wrong, or why it failed."""
        device = self.session.device
        self.peak = None
        try:
            action = prepare()
            if action is None:
                return {}
            times = timing_of(action, device)
        except RuntimeError as error:
            reason = why(error, 0.0, 0.0)
            return {"skipped": self.failure(error)} if reason.startswith("failed") else None
        return {**times, "peak_memory_bytes": peak_bytes(device) if self.peak is None else self.peak}

    def failure(self, error: RuntimeError) -> str:
        """Why a cell was not timed, in one line; the whole error is printed."""
        traceback.print_exception(error)
        self.session.num_failed += 1
        reason = why(error, 0.0, 0.0)
        if any(word in reason for word in FAULTS):
            raise DeviceFault(reason) from error
        return reason

    def cleared(self) -> int:
        """Bytes that are free when everything is given back that a step left behind."""
        self.training.optimizer.zero_grad(set_to_none=True)
        release(self.session.device)
        return free_bytes(self.session.device)

    def warm(self) -> Callable[[], Any]:
        """The step itself, after one that compiles what is new of its shape."""
        self.training()
        reset_peak(self.session.device)
        return self.training

    def first(self, cell: Fields) -> Callable[[], Any] | None:
        """`warm`, if the loss of the compiled shape is that of plain launches; else None."""
        begin = time.monotonic()
        with self.training.mixed():
            compiled = float(self.training.loss(self.training.tokens).detach())
        say(f"{cell['model']} {cell['size']}: compiled in {time.monotonic() - begin:.0f} s")
        release(self.session.device)
        row = compare_launches(compiled, plain_loss(self.training))
        if row["verdict"] == "fail":
            self.check(cell, row)
            return None
        return self.warm()

    def captured(self, cell: Fields) -> Callable[[], Any] | None:
        """Replays of the step as one CUDA graph; None if it does not do what the launches do.

        Three losses are compared once a model, which also shows that weights are updated; then the first of a shape.
        """
        training = self.training
        number = NUM_STEPS if self.change is None else 1
        if self.change is None:
            training()  # the optimizer has what `undone` keeps
        with training.undone():
            launched = losses_of(training, number)
        if self.change is None:
            self.change = max(launched) - min(launched)
        release(self.session.device)
        with training.undone():
            on_another_stream(training)
        release(self.session.device)
        reset_peak(self.session.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = training()
        self.peak = peak_bytes(self.session.device)

        def replay() -> Tensor:
            graph.replay()
            return loss

        with training.undone():
            replayed = losses_of(replay, number)
        row = compare_graph(launched, replayed, self.change)
        if row["verdict"] == "fail" or number > 1:
            self.check(cell, row)
        return replay if row["verdict"] == "pass" else None

    def reason(self, cell: Fields, free: int) -> str:
        """Why a cell is left out that did not fit."""
        self.cleared()
        needed = needed_bytes(self.training, cell["batch_size"], cell["context_length"])
        return f"needs more than {free / 2**30:.1f} GiB" if needed is None else does_not_fit(max(needed, free), free)


def on_another_stream(action: Callable[[], Any]) -> None:
    """Run an action as a capture will: what it sets up once on a stream must not become part of the graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        action()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
