"""Chapter 16: the laboratory of the page in figures and values: the sweep, the score, the sealed world opened."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch16.playing import losses_and_rates, stated_rate
from companion.chapters.ch16.trial import fit_law
from companion.chapters.labels import the
from companion.fitting.fit import Fit
from companion.formatting import count, level_text, percent, plural, signed_percent
from companion.plotting import ARCHITECTURE_COLORS, LABELS, Html, show, subplots
from companion.plotting.style import INK, architecture_look, percent_ticks
from companion.study.laboratory import Answer, Ask, Prediction, Score, World


def sweep_figure(answers: Sequence[Answer]) -> Html:
    """Loss over the stated learning rate, a line for each architecture; runs that diverged are marked at the top."""
    figure, (ax,) = subplots(height=3.2)
    losses, rates = losses_and_rates(answers)
    top = max(float(loss.max()) for loss in losses.values())
    for name, look in architecture_look(losses).items():
        order = np.argsort(rates[name])
        ax.plot(rates[name][order], losses[name][order], markersize=6, **look)
        for answer in answers:
            if answer.outcome.diverged and answer.ask.architecture == name:
                ax.plot(stated_rate(answer.ask), top, "x", color=look["color"], markersize=8)
    ax.plot([], [], "x", color="#888888", linewidth=0, label="diverged")
    tried = sorted({stated_rate(answer.ask) for answer in answers})
    ax.set(xscale="log", xlabel="learning rate, as stated at 10⁸ parameters (10⁻³)", ylabel=LABELS["val_loss"])
    ax.set_xticks(tried, [f"{1e3 * rate:.3g}" for rate in tried])
    ax.minorticks_off()
    ax.legend()
    return show(
        figure,
        name="lab-sweep",
        alt="Valleys of the loss over the learning rate for two architectures; crosses mark runs that diverged.",
        caption="The sweep at one size. A cross at the upper edge is a run that diverged: it cost what was spent until "
        "then. Rates are stated at 10⁸ parameters and 8 sequences a step.",
    )


def settings_cost(world: World, ask: Ask) -> float:
    """What the settings of a run add to its log loss in a hidden world: learning rate, batch, schedule.

    The best settings and a tiny batch add nothing.
    """
    return math.log(world.expected_loss(ask) / world.law_loss(ask.architecture, ask.num_params, ask.num_tokens))


def opened_figure(world: World, answers: Sequence[Answer], prediction: Prediction, law: Fit) -> Html:
    """What settings cost each run, and how far the fitted law is from the hidden one: both over compute."""
    own = [a.ask for a in answers if a.ask.architecture == prediction.ask.architecture and not a.outcome.diverged]
    figure, (left, right) = subplots(1, 2, height=3.3, sharex=True)
    color = ARCHITECTURE_COLORS.get(prediction.ask.architecture, "#029e73")
    left.plot([a.train_flops for a in own], [settings_cost(world, a) for a in own], "o", color=color, markersize=4.5)
    for ask, marker, label in ((prediction.ask, "*", "target"),):
        left.plot(ask.train_flops, settings_cost(world, ask), marker, color=INK, markersize=12, label=label)
        right.plot(ask.train_flops, _law_error(world, law, ask), marker, color=INK, markersize=12, label=label)
    right.plot([a.train_flops for a in own], [_law_error(world, law, a) for a in own], "o", color=color, markersize=4.5)
    left.set_ylabel("settings add to the loss (%)")
    right.set_ylabel("fitted over true loss (%)")
    for ax in (left, right):
        ax.axhline(0, color="#888888", linewidth=0.9)
        ax.set(xscale="log", xlabel=LABELS["train_flops"])
        ax.legend()
        percent_ticks(ax.yaxis)
    return show(
        figure,
        name="lab-opened",
        alt="Left: what settings add to the loss falls as compute grows. Right: the fitted law is near the runs and "
        "off at the target.",
        caption="The sealed world, opened after the score. Left: what learning rate, batch and schedule add to the "
        "loss of every run. Right: the fitted law over the mean loss of a run in this world. Star: the target run.",
    )


def _law_error(world: World, law: Fit, ask: Ask) -> float:
    return float(np.log(law.predict(ask.num_params, ask.num_tokens) / world.expected_loss(ask)))


def sweep_facts(answers: Sequence[Answer], architecture: str, rate: float) -> dict[str, str]:
    """Values of the sweep."""
    diverged = sum(answer.outcome.diverged for answer in answers)
    return {
        "c16_sweep_runs": plural(len(answers), "run"),
        "c16_sweep_best": the(architecture),
        "c16_sweep_rate": f"{rate:.2g}",
        "c16_sweep_diverged": plural(diverged, "run") if diverged else "no run",
    }


def score_facts(prediction: Prediction, score: Score, level: float) -> dict[str, str]:
    """Values of the reveal."""
    chosen = prediction.ask
    return {
        "c16_score_target": f"{count(chosen.num_params)} parameters on {count(chosen.num_tokens)} tokens",
        "c16_score_total": f"{score.total:.0f}",
        "c16_score_verdict": score_verdict(score),
        "c16_score_width": percent(math.log(prediction.high / prediction.low)),
        "c16_score_error": percent(abs(score.log_error)),
        "c16_score_side": "too high" if score.log_error > 0 else "too low",
        "c16_score_share": percent(score.compute_share),
        "c16_score_level": level_text(level),
    }


def score_verdict(score: Score) -> str:
    """A verdict: whether the interval held the outcome."""
    return "holds the outcome" if score.covered else "does not hold the outcome"


def without_settings(world: World, answers: Sequence[Answer], target: Ask) -> float:
    """ln(predicted / observed) that the fit would have reached at a target, had settings cost the runs nothing.

    The cost of its settings is taken out of every loss and the law fitted again; at the target it is put back. What is
    left is chance: that of the runs, of the law's parameters, and not that of the target, which counts by its mean.
    """
    done = [answer for answer in answers if answer.outcome.val_loss is not None]
    rows = [
        {
            "num_params": answer.ask.num_params,
            "num_tokens": answer.ask.num_tokens,
            "train_flops": answer.ask.train_flops,
            "val_loss": float(answer.outcome.val_loss or np.nan) * math.exp(-settings_cost(world, answer.ask)),
        }
        for answer in done
    ]
    law = fit_law(pd.DataFrame(rows))
    return _law_error(world, law, target) + settings_cost(world, target)


def opened_facts(world: World, answers: Sequence[Answer], prediction: Prediction, law: Fit) -> dict[str, str]:
    """Values of the opened world."""
    done = sorted((a for a in answers if not a.outcome.diverged), key=lambda answer: answer.ask.train_flops)
    costs = [settings_cost(world, answer.ask) for answer in done]
    error, cleaned = _law_error(world, law, prediction.ask), without_settings(world, answers, prediction.ask)
    return {
        "c16_opened_small": percent(float(np.mean(costs[:5]))),
        "c16_opened_large": percent(float(np.mean(costs[-3:]))),
        "c16_opened_target": percent(settings_cost(world, prediction.ask)),
        "c16_opened_error": signed_percent(error, 1),
        "c16_opened_cleaned": signed_percent(cleaned, 1),
        "c16_opened_verdict": opened_verdict(error, cleaned),
    }


def opened_verdict(error: float, cleaned: float) -> str:
    """A verdict: whether the cost of settings explains most of a fit's error."""
    if abs(cleaned) < abs(error) / 2:
        return "So the fit took the falling cost of settings for a part of the law"
    return "So here the cost of settings is not what moved the prediction"
