"""Chapter 11: what its sentences say about two architectures compared, the settings of their runs, and kernels."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from companion.chapters.applicability import PAPER_PAIR, need
from companion.chapters.ch11.compared import decompose, factor_of
from companion.chapters.ch11.facts import with_interval
from companion.chapters.ch11.layers import tokens_per_gpu
from companion.chapters.ch11.prediction import Prediction
from companion.chapters.ch11.shown import Costs
from companion.chapters.labels import by_label, the
from companion.formatting import count, listed, number_word, percent, power_of_ten, span_text


def decomposition_facts(costs: Costs, parts: pd.DataFrame) -> dict[str, str]:
    """The factors at equal loss with their intervals, and the losses they are of."""
    first, second = costs.pair()
    losses = costs.common_losses()
    rows = parts.set_index("quantity")
    texts = {
        name: with_interval(*rows.loc[quantity, ["factor", "low", "high"]])
        for name, quantity in (
            ("tokens", "num_tokens"),
            ("per_token", "flops_per_token"),
            ("flops", "train_flops"),
            ("time", "time_per_flop"),
            ("hours", "gpu_hours"),
        )
    }
    least, most = rows.loc["gpu_hours", ["smallest", "largest"]]
    time = factor_of(parts, "time_per_flop")
    one, two = (law.minima(losses[[-1, 0]], shapes="smooth")["gpu_hours"][:, 0] for law in costs.pair_laws())
    return {
        "c11_first": the(first),
        "c11_second": the(second),
        "c11_low": f"{losses[0]:.2f}",
        "c11_high": f"{losses[-1]:.2f}",
        "c11_hours_span": f"{least:.2f} to {most:.2f}",
        "c11_hours_ends": "{:.2f} to {:.2f}".format(*(two / one)),
        "c11_time_word": "lower" if time > 1 else "higher",
        "c11_per_token_why": "Attention does more work for a token the longer the context; an mLSTM does not"
        if set(costs.pair()) == set(PAPER_PAIR)
        else "What a token costs depends on the size and on the sequence mixer",
        **{f"c11_{name}": text for name, text in texts.items()},
    }


def hull_facts(costs: Costs, table: pd.DataFrame, parts: pd.DataFrame) -> dict[str, str]:
    """The hulls' median over all common losses, beside the factor by the laws.

    Parameters
    ----------
    table, parts
        of `hull_factors` and `decompose`.
    """
    row = table.set_index("cost").astype(float).T.to_dict()["gpu_hours"]
    law = factor_of(parts, "gpu_hours")
    high = float(costs.common_losses()[-1])
    beyond = max(0.0, row["highest_loss"] - high) / (row["highest_loss"] - row["lowest_loss"])
    budgets = {name: power_of_ten(costs.runs[name]["train_flops"].min()) for name in costs.pair()}
    middle = (high + row["highest_loss"]) / 2  # of the losses without runs made for them
    needs = {law.architecture: law.minima([middle])["train_flops"][0, 0] for law in costs.pair_laws()}
    without = [name for name in costs.pair() if needs[name] < costs.laws[name].flops_range[0]]
    first, second = costs.pair()
    effects = {first: "too small", second: "too large"}
    effect = effects[without[0]] if len(without) == 1 else "wrong in both its parts"
    return {
        "c11_hull": f"{row['factor']:.2f}",
        "c11_hull_losses": f"{row['lowest_loss']:.2f} to {row['highest_loss']:.2f}",
        "c11_hull_law": f"{law:.2f}",
        "c11_hull_beyond": percent(beyond, decimals=0),
        "c11_hull_smallest": by_label(budgets) if len(set(budgets.values())) > 1 else budgets[costs.pair()[0]],
        "c11_hull_who": listed([the(name) for name in without or costs.pair()]),
        "c11_hull_effect": effect,
    }


def shift_facts(costs: Costs, table: pd.DataFrame) -> dict[str, str]:
    """How much larger the size of fewest GPU-hours is, and what it saves, at the loss nearest to that of the page."""
    ratios, savings = {}, {}
    for name, rows in table.groupby("architecture", sort=False):
        near = rows.iloc[int((rows["loss"] - costs.loss).abs().argmin())]
        away = "" if np.isclose(near["loss"], costs.loss) else f" at a loss of {near['loss']:.3f}"
        ratios[str(name)] = with_interval(*near[["ratio", "ratio_low", "ratio_high"]]) + away
        savings[str(name)] = percent(near["saving"], 1)
    return {"c11_shift": by_label(ratios), "c11_saving": by_label(savings)}


def scatter_facts(over_sizes: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """How far the GPU-hours of trained sizes lie off the smooth line.

    Parameters
    ----------
    over_sizes
        of `companion.chapters.ch11.compared.hours_over_size`.
    """
    off = {}
    for name, table in over_sizes.items():
        smooth, trained = (table[table["trained"] == each] for each in (False, True))
        line = np.interp(np.log(trained["num_params"]), np.log(smooth["num_params"]), smooth["gpu_hours"])
        off[name] = percent(float((trained["gpu_hours"] / line - 1).abs().max())) if len(trained) else "not known"
    return {"c11_off_line": by_label(off)}


def prediction_facts(prediction: Prediction, cases: pd.DataFrame, ratio: float) -> dict[str, str]:
    """Share of the cell, factor of the kernels, what that would change, and its range.

    Parameters
    ----------
    cases, ratio
        of `Prediction.cases`, and what it was called with.
    """
    shares, central = prediction.shares, cases.iloc[0]
    return {
        "c11_kernel_gpu": prediction.gpu.removeprefix("NVIDIA ").split(" ")[0],
        "c11_kernel_factor": f"{central['factor']:.1f}",
        "c11_kernel_factors": span_text(prediction.factors["factor"], "{:.1f}".format),
        "c11_share_timed": span_text(shares["share_timed"], lambda v: percent(v)),
        "c11_share_flops": span_text(shares["share_flops"], lambda v: percent(v)),
        "c11_share_models": f"{len(shares)}",
        "c11_saved": percent(central["saved"]),
        "c11_saved_range": span_text(cases["saved"], lambda v: percent(v)),
        "c11_ratio_now": f"{ratio:.2f}",
        "c11_ratio_then": f"{central['ratio']:.1f}",
        "c11_ratio_range": span_text(cases["ratio"], "{:.1f}".format),
        "c11_ratio_most": f"{cases['ratio'].max():.1f}",
    }


def settings_of(costs: Costs) -> pd.DataFrame:
    """How the runs behind the fronts were trained, as far as the logs record it.

    Returns
    -------
    DataFrame
        a row for every setting that the logs know of all architectures: `setting`, and a text for every architecture.

    Raises
    ------
    NotApplicable
        if there is one architecture only.
    """
    need(len(costs.names) > 1, "there is one architecture, so nothing else differs")
    rows = []
    for words, function in _SETTINGS.items():
        texts = {name: function(costs.runs[name]) for name in costs.names}
        if all(texts.values()):
            rows.append({"setting": words} | texts)
    return pd.DataFrame(rows)


def _with_runs(values: pd.Series) -> str:
    """Values with how many runs have them, `8 (11), 16 (70)`; of many their span."""
    counts = values.value_counts().sort_index()
    if len(counts) > 3:
        return span_text(values, "{:,.0f}".format)
    return ", ".join(f"{value:,.0f} ({number})" for value, number in counts.items())


def _values(column: str, style: Callable[[float], str] = "{:g}".format) -> Callable[[pd.DataFrame], str]:
    def text(runs: pd.DataFrame) -> str:
        known = sorted(runs[column].dropna().unique()) if column in runs else []
        return ", ".join(style(value) for value in known) if len(known) <= 4 else span_text(known, style)

    return text


#: Settings by what a table calls them; each makes a text from the runs, empty where they do not know it.
_SETTINGS: dict[str, Callable[[pd.DataFrame], str]] = {
    "number of GPUs": lambda runs: _with_runs(runs["num_gpus"]),
    "tokens per step": lambda runs: span_text(runs["num_tokens"] / runs["train_steps"], "{:,.0f}".format),
    "tokens per GPU and step": lambda runs: _with_runs(tokens_per_gpu(runs)),
    "GPUs per copy of the weights": _values("fsdp_size"),
    "peak learning rate": _values("learning_rate"),
    "warm-up steps": _values("warmup_steps"),
    "cool-down steps": _values("cooldown_steps"),
    "queries of a head (d_qk)": _values("d_qk"),
    "values of a head (d_hv)": _values("d_hv"),
}


def setting_facts(costs: Costs, settings: pd.DataFrame) -> dict[str, str]:
    """Which settings differ, whether any model was trained on two numbers of GPUs, and utilization beside a change.

    Parameters
    ----------
    settings
        of `settings_of`.
    """
    texts = settings.set_index("setting")
    differ = [str(name) for name, row in texts.iterrows() if len(set(row)) > 1]
    same = [str(name) for name in texts.index if name not in differ]
    twice, beside = 0, {}
    for name, runs in costs.runs.items():
        pairs = runs.drop_duplicates(["num_params", "num_gpus"])
        twice += int((pairs["num_params"].value_counts() > 1).sum())
        counts = sorted(runs["num_gpus"].unique())
        if len(counts) > 1:
            fewer, more = (runs[runs["num_gpus"] == gpus] for gpus in (counts[0], counts[-1]))
            ends = (fewer.sort_values("num_params").iloc[-1], more.sort_values("num_params").iloc[0])
            beside[name] = " and ".join(
                f"{percent(run['utilization'], 3)} ({count(run['num_params'])}, {run['num_gpus']:.0f} GPUs)"
                for run in ends
            )
    sizes = "No model was" if twice == 0 else "One model was" if twice == 1 else f"{number_word(twice)} models were"
    return {
        "c11_differ": listed(differ) or "none of them",
        "c11_same": listed(same) or "none of them",
        "c11_both_counts": f"{sizes[0].upper()}{sizes[1:]} trained on two numbers of GPUs",
        "c11_beside": beside_words(beside),
    }


def beside_words(beside: Mapping[str, str]) -> str:
    """A sentence on the utilizations on both sides of a change in the number of GPUs, by architecture."""
    if not beside:
        return "Every architecture ran on one number of GPUs"
    texts = "; ".join(f"{text} for {the(name)}" for name, text in beside.items())
    return (
        "Compare the largest model on the fewest GPUs with the smallest on the most, where a large cost of the further "
        f"GPUs would show. Their utilizations are {texts}"
    )


def hours_ratio(costs: Costs) -> float:
    """GPU-hours of the second architecture over the first by the laws.

    Raises
    ------
    NotApplicable
        without two laws.
    """
    return factor_of(decompose(costs), "gpu_hours")
