"""The numbers of the explorer at a setting, and the data from which the page's script computes them.

A `Setting` is the position of the sliders. `Explorer.evaluate` computes a setting through the package's own functions;
`Explorer.model` gives laws, shapes, coefficients and ranges as plain JSON, from which `book/_assets/explorer_model.js`
computes the same numbers in the page. A browser test holds both together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting.conventions import PAPER
from companion.accounting.inference import BF16, InferencePass, count_prefill, count_step
from companion.accounting.polynomials import cost_polynomials
from companion.accounting.symbolic import SYMBOLS
from companion.architectures import ARCHITECTURES, architecture_class
from companion.architectures.base import usual_attention_heads
from companion.errors import InputError, NotApplicable
from companion.explorer.hours import Place, hours, no_utilization, utilization_model
from companion.explorer.ranges import MARGIN, beyond, ranges_of, values_of
from companion.explorer.settings import CONTEXTS, CONTROLS, OPTIMAL, Setting, link_value
from companion.fitting.bootstrap import percentile_interval
from companion.hardware import REFERENCE_HARDWARE, known_hardware
from companion.inference.features import terms_known
from companion.inference.runtime_model import RuntimeModel
from companion.laws import LossSurface, optimum
from companion.planner.knowledge import Knowledge, Learned, learn, without_name
from companion.runs.shape_family import (
    DIFFERENCE_STEP,
    LARGEST_WIDTH,
    SMALLEST_WIDTH,
    FamilyScale,
    ShapeFamily,
    paper_family,
)
from companion.training.throughput import with_throughput


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """What is known of every architecture, and the setting that the page opens with.

    `left_out` gives the reason for every architecture of the tables that the page cannot show. `counted` are those
    without a law and without times, by their shapes: of these the page shows size, memory and roofline times.
    """

    known: Mapping[str, Knowledge]
    default: Setting = field(default_factory=Setting)
    level: float = 0.95
    left_out: Mapping[str, str] = field(default_factory=dict)
    counted: Mapping[str, ShapeFamily] = field(default_factory=dict)
    #: what the training logs were measured on, a name of `data/hardware.csv`.
    logs_hardware: str = REFERENCE_HARDWARE

    @classmethod
    def of(
        cls,
        runs: pd.DataFrame | None = None,
        timings: pd.DataFrame | None = None,
        *,
        logs: pd.DataFrame | None = None,
        logs_hardware: str = REFERENCE_HARDWARE,
        default: Setting | None = None,
        architectures: Sequence[str] | None = None,
        experiment: str | None = None,
        num_resamples: int = 200,
    ) -> "Explorer":
        """The explorer of a run table, a table of timings and training logs, by default the paper's.

        `logs_hardware` is what `logs` (`companion.training.load_training_logs`) were measured on, a name of
        `data/hardware.csv`. Logs that say too little of utilization leave the page without GPU-hours, and a note.
        The law is that of the table's context length (see `learn`), from all runs or those of one `experiment`.
        `architectures` are by default all that the planner knows. `default` is moved to the nearest steps of the
        sliders; without it the page opens at the context length of the laws. An architecture without an identified law,
        without intervals, or without an optimum at the opening is left out.

        Raises
        ------
        NotApplicable
            if no architecture is left; the message says why for each.
        """
        own = None if logs is None else with_throughput(logs, logs_hardware)
        reason = "" if own is None else no_utilization(own)
        usable = None if reason else own
        known = learn(runs, timings, architectures, logs=usable, experiment=experiment, num_resamples=num_resamples)
        for name, knowledge in known.items():
            if reason:
                known[name] = replace(knowledge, utilization=None, unlogged=reason)
        explorer = cls.of_known(known, default=default, architectures=architectures)
        return explorer if own is None else replace(explorer, logs_hardware=logs_hardware)

    @classmethod
    def of_known(
        cls, known: Learned, *, default: Setting | None = None, architectures: Sequence[str] | None = None
    ) -> "Explorer":
        """The explorer of what `companion.planner.learn` returned; the rest as `of`."""
        start = default or Setting()
        if default is None and (context := _law_context(known)) is not None:
            start = replace(start, context_length=min(max(context, CONTEXTS[0]), CONTEXTS[-1]))
        moved = {
            c.name: type(value)(c.nearest(value)) for c in CONTROLS if (value := getattr(start, c.name)) is not None
        }
        explorer = cls(known=known, default=replace(start, **moved))
        left_out = dict(known.left_out)
        for name, knowledge in known.items():
            if knowledge.bootstrap.withheld:
                left_out[name] = f"{name}: no intervals: {knowledge.bootstrap.withheld}"
                continue
            try:
                if knowledge.family.window is not None:
                    raise InputError(f"{name}: a sliding window, which the page cannot count")
                explorer._evaluate_one(knowledge, explorer.default)
            except InputError as error:
                left_out[name] = str(error)
        shown = {name: knowledge for name, knowledge in known.items() if name not in left_out}
        if not shown:
            raise NotApplicable("; ".join(without_name(name, reason) for name, reason in left_out.items()))
        explorer = replace(explorer, known=shown, left_out=left_out)
        return replace(explorer, counted=_countable(explorer, architectures))

    @property
    def notes(self) -> list[tuple[str, str]]:
        """What a reader must know before any number, with its kind: `bad` for what is missing, `open` for choices."""
        missing = [("bad", f"{without_name(name, reason)} (left out)") for name, reason in self.left_out.items()]
        notes = [("open", f"{name}: {note}") for name, one in self.known.items() for note in one.notes]
        unlogged: dict[str, list[str]] = {}
        for name, one in self.known.items():
            if one.utilization is None:
                unlogged.setdefault(one.unlogged, []).append(name)
        notes += [("open", f"{', '.join(names)}: no GPU-hours: {reason}") for reason, names in unlogged.items()]
        return missing + notes

    def evaluate(self, setting: Setting | None = None) -> dict[str, dict[str, Any]]:
        """Everything the page shows at a setting, by architecture.

        Returns
        -------
        dict with
            `numbers`: `num_params`, `num_tokens`, `tokens_per_param`, `loss` (nats per token) of the model trained at
            C, T and M; the same with the prefix `optimal_` for the least loss at C and T, where a token costs
            `optimal_flops_per_token` in training; `excess_loss` of the first over the second; of the first model
            `ttft_s`, `step_time_s` and their rooflines `ttft_roofline_s`, `step_time_roofline_s` (seconds),
            `memory_bytes` (the larger of prefill's and step's), of these `weight_bytes`, and `cache_bytes` at the end
            of the prompt; by training logs the `utilization` of the first model, a share of the peak, and its
            `train_gpu_hours`; of the cheapest model with the loss of the first architecture's, `target_loss`,
            `target_num_params`, `target_train_flops`, `target_gpu_hours`, and these over those of the first
            architecture, `target_gpu_hours_ratio`.
            `intervals`: of the losses and their difference, the optimum and the times. Losses and optimum: the law
            refitted to resampled runs; times: resampled coefficients and the scatter of the timings about the fit.
            Utilization and GPU-hours: one further run; for `target_gpu_hours` under the resampled laws as well, none
            where too many of them never get there.
            `fits`: whether the memory suffices.
            `outside`: `{of, name, value, low, high}` of every value outside the range of the data, where `of` is
            `loss`, `optimum`, `ttft`, `step_time`, `utilization`, `target`, `target_logs` (GPU-hours of the target) or
            `ratio` (of either model). What no log shows is `logged_params`, the size at this context length,
            `logged_context` or `hardware`, whose three values are names.
            `missing`: by number `no logs` or `not reached` (the law never has this loss); the number is None.
            `below_roofline`: `ttft` or `step_time` where the runtime model, far from its timings, promises more than
            the hardware can do.

        Raises
        ------
        InputError
            if no width from 16 to 2^19 has the asked cost.
        """
        chosen = setting or self.default
        results = {name: self._evaluate_one(knowledge, chosen) for name, knowledge in self.known.items()}
        trained = {name: result["numbers"] for name, result in results.items()}
        ranges = {name: ranges_of(knowledge)["optimum"] for name, knowledge in self.known.items()}
        place = Place(setting=chosen, level=self.level, logs_hardware=self.logs_hardware)
        for name, more in hours(self.known, trained, place, ranges).items():
            result = results[name]
            result["numbers"] |= more.numbers
            result["intervals"] |= more.intervals
            result["outside"] += more.outside
            result["missing"] = more.missing
        return results

    def _evaluate_one(self, knowledge: Knowledge, setting: Setting) -> dict[str, Any]:
        scale = FamilyScale(family=knowledge.family, context_length=setting.context_length)
        law, flops = knowledge.fit.law, setting.train_flops
        best = optimum(law, scale, flops)
        resampled = optimum(knowledge.bootstrap.laws, scale, flops)
        if setting.tokens_per_param is None:
            size, tokens = float(best.num_params[0]), float(best.num_tokens[0])
        else:
            size = _size_for(scale, flops, setting.tokens_per_param)
            tokens = size * setting.tokens_per_param
        shapes = knowledge.family.at(size)
        where = (shapes, setting.context_length, setting.batch_size, setting.hardware)
        passes = [count(*where[:3]) for count in (count_prefill, count_step)]
        ttft, step_time = knowledge.times
        loss, losses = float(law.predict(size, tokens)), knowledge.bootstrap.laws.predict(size, tokens)
        numbers = {
            "num_params": size,
            "num_tokens": tokens,
            "tokens_per_param": tokens / size,
            "loss": loss,
            "excess_loss": 0.0 if setting.tokens_per_param is None else float(_excess(loss, best.loss[0])),
            **{f"optimal_{name}": float(getattr(best, name)[0]) for name in _OF_OPTIMUM},
            "optimal_flops_per_token": flops / float(best.num_tokens[0]),
            "ttft_s": float(ttft.predict(*where)),
            "step_time_s": float(step_time.predict(*where)),
            **_counted_numbers(passes, setting.hardware),
        }
        samples = {
            "loss": losses,
            "excess_loss": _excess(losses, resampled.loss),
            **{f"optimal_{name}": getattr(resampled, name) for name in _OF_OPTIMUM},
            "ttft_s": ttft.samples(*where),
            "step_time_s": step_time.samples(*where),
        }
        intervals = {name: list(percentile_interval(values, self.level)) for name, values in samples.items()}
        fits = not any(counted.fit_message(setting.hardware) for counted in passes)
        outside = beyond(ranges_of(knowledge), values_of(numbers, setting))
        impossible = [of for of in ("ttft", "step_time") if numbers[f"{of}_s"] < numbers[f"{of}_roofline_s"]]
        return {
            "numbers": numbers,
            "intervals": intervals,
            "fits": fits,
            "outside": outside,
            "below_roofline": impossible,
        }

    def count(self, setting: Setting | None = None) -> dict[str, dict[str, float]]:
        """What can be counted of architectures without law and times (`counted`), by architecture.

        Returns
        -------
        dict[str, dict[str, float]]
            with `num_params`, `num_tokens`, `tokens_per_param`, `ttft_roofline_s`, `step_time_roofline_s`,
            `memory_bytes`, `weight_bytes`, `cache_bytes` as in `evaluate`. Where M is compute-optimal, that of the
            first architecture with a law is taken.
        """
        chosen, found = setting or self.default, {}
        ratio = chosen.tokens_per_param
        if ratio is None:
            first = next(iter(self.known.values()))
            ratio = self._evaluate_one(first, chosen)["numbers"]["optimal_tokens_per_param"]
        for name, family in self.counted.items():
            size = _size_for(
                FamilyScale(family=family, context_length=chosen.context_length), chosen.train_flops, ratio
            )
            shapes = family.at(size)
            passes = [count(shapes, chosen.context_length, chosen.batch_size) for count in (count_prefill, count_step)]
            trained = {"num_params": size, "num_tokens": size * ratio, "tokens_per_param": ratio}
            found[name] = trained | _counted_numbers(passes, chosen.hardware)
        return found

    def model(self) -> dict[str, Any]:
        """All that the page's script needs, as plain dicts, lists, text and finite numbers."""
        return {
            "architectures": [
                _architecture(knowledge, i, self.level) for i, knowledge in enumerate(self.known.values())
            ],
            "counted": [_shapes(family) for family in self.counted.values()],
            "hardware": [vars(entry) for entry in known_hardware().values()],
            "convention": {name: getattr(PAPER, name) for name in ("chunk_size", "backward_factor")},
            "precision": asdict(BF16),
            "search": {"smallest": SMALLEST_WIDTH, "largest": LARGEST_WIDTH, "difference_step": DIFFERENCE_STEP},
            "logs_hardware": self.logs_hardware,
            "margin": MARGIN,
            "level": self.level,
            "law_context": _law_context(self.known),
            "notes": self.notes,
            "controls": [
                {name: getattr(control, name) for name in ("name", "key", "label")}
                | {"steps": [{"value": v, "link": link_value(v), "text": control.text(v)} for v in control.steps]}
                for control in CONTROLS
            ],
            "optimal": OPTIMAL,
            "default": asdict(self.default),
        }


def _law_context(known: Mapping[str, Knowledge]) -> int | None:
    """The context length of most laws; None where no table names one."""
    contexts = [knowledge.law_context for knowledge in known.values() if knowledge.law_context is not None]
    return max(contexts, key=contexts.count) if contexts else None


def _countable(explorer: Explorer, chosen: Sequence[str] | None) -> dict[str, ShapeFamily]:
    """The chosen architectures, or all, that nobody has timed and that have a size at the opening of the page."""
    found: dict[str, ShapeFamily] = {}
    for name, each in ARCHITECTURES.items():
        if not terms_known(each) and name in (chosen or ARCHITECTURES):
            one = {name: paper_family(name)}
            try:
                replace(explorer, counted=one).count()
            except InputError:
                continue  # no width of this architecture costs that much, or that little
            found |= one
    return found


def _size_for(scale: FamilyScale, flops: float, ratio: float) -> float:
    """N at which a model costs C at M tokens per parameter; an InputError if no width of its family does."""
    size = float(scale.num_params(flops, ratio))
    if not math.isclose(float(scale.train_flops(size, ratio)), flops, rel_tol=1e-6):
        raise InputError(
            f"explorer: no {scale.family.architecture} with d_model from {SMALLEST_WIDTH:g} to {LARGEST_WIDTH:g} "
            f"costs {flops:g} FLOP at {ratio:g} tokens per parameter"
        )
    return size


def _counted_numbers(passes: Sequence[InferencePass], hardware: str) -> dict[str, float]:
    """Roofline times and memory of a prefill and a step."""
    return {
        "ttft_roofline_s": float(passes[0].roofline(hardware).seconds),
        "step_time_roofline_s": float(passes[1].roofline(hardware).seconds),
        "memory_bytes": float(max(counted.memory.total for counted in passes)),
        "weight_bytes": float(passes[0].memory.weights),
        "cache_bytes": float(passes[1].memory.cache),
    }


def _excess(loss: Any, optimal: Any) -> Any:
    """How far a loss is above the optimum; rounding can put it below."""
    return np.maximum(loss - optimal, 0.0)


_OF_OPTIMUM = ("num_params", "num_tokens", "tokens_per_param", "loss")


def _architecture(knowledge: Knowledge, index: int, level: float) -> dict[str, Any]:
    samples = knowledge.bootstrap.samples[list(LossSurface.PARAMETERS)].dropna()
    ttft, step_time = knowledge.times
    return {
        **_shapes(knowledge.family),
        "law": {name: float(getattr(knowledge.fit.law, name)) for name in LossSurface.PARAMETERS},
        "laws": {name: samples[name].tolist() for name in LossSurface.PARAMETERS},
        "ttft": _runtime(ttft),
        "step_time": _runtime(step_time),
        "ranges": ranges_of(knowledge),
        "utilization": utilization_model(knowledge, index, level),
        "law_context": knowledge.law_context,
    }


def _shapes(family: ShapeFamily) -> dict[str, Any]:
    """Name, family, and the counts as polynomials of the shapes of its members."""
    names = ("tied_embeddings", "qk_norm", "attention_every")
    shapes = {name: value for name in names if (value := getattr(family, name)) is not None}
    heads, width = SYMBOLS["n_heads"], SYMBOLS["d_model"]
    shapes["n_kv_heads"] = family.kv_ratio * (usual_attention_heads(width, heads) if family.hybrid else heads)
    if family.ff_ratio == 0:
        shapes["d_ff"] = 0
    ratio = architecture_class(family.architecture).hidden_ratio
    counts = cost_polynomials(family.architecture, shapes, convention=PAPER, precision=BF16)
    return {"name": family.architecture, "family": asdict(family) | {"hidden_ratio": ratio}, "counts": counts}


def _runtime(model: RuntimeModel) -> dict[str, Any]:
    return {
        "hardware": model.hardware.name,
        "terms": [{"name": term.name, "kind": term.kind} for term in model.terms],
        "coefficients": model.coefficients.tolist(),
        "resamples": model.resamples.tolist(),
        "scatter": model.scatter(len(model.resamples)).tolist(),
    }
