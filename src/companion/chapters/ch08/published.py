"""Chapter 8: the published fits beside ours, how the authors count, and what their one resample did."""

import pandas as pd

from companion.chapters.ch08.common import QUANTITY_NAMES
from companion.chapters.ch08.draw_figures import constants_over_draws, ratios_over_draws
from companion.chapters.ch08.draws import DrawnFits, prefill_ratios
from companion.chapters.ch08.figures import tokens_text
from companion.formatting import number_word, percent, power_of_ten, share_in_words, span_text
from companion.inference.published import search_shortfall
from companion.ledger import REPRODUCED
from companion.paths import data_dir
from companion.plotting import Html, show
from companion.plotting.embed import show_table
from companion.plotting.style import architecture_label

#: A short prompt (tokens) at which the published form is tried.
SHORT_PROMPT = 512


def ledger_table(ledger: pd.DataFrame) -> Html:
    """Published parameters by architecture and quantity: how many come out again, and how closely.

    Parameters
    ----------
    ledger
        from `companion.ledger.to_frame`.
    """
    rows = _with_relative(ledger)
    done = rows["verdict"] == REPRODUCED
    groups = rows.assign(
        architecture=rows["entry"].str.split(" ").str[0].map(architecture_label),
        what=rows["entry"].str.split(" ").str[-1].map(QUANTITY_NAMES),
        reproduced=done,
        independent=done & rows["independent"].astype(bool),
        largest=rows["relative"].abs(),
    ).groupby(["architecture", "what"], sort=False)
    table = groups.agg(
        numbers=("quantity", "size"),
        reproduced=("reproduced", "sum"),
        independent=("independent", "sum"),
        largest=("largest", "max"),
    )
    return show_table(
        table.reset_index(),
        name="inference-published",
        caption="Published parameters of the runtime models that the authors' procedure gives again. Independent: "
        "no input was reconstructed from the published number.",
        formats={"largest": lambda value: power_of_ten(value, 1)},
        labels={"largest": "largest relative difference"},
    )


def published_facts(timings: pd.DataFrame, ledger: pd.DataFrame, counts: pd.DataFrame) -> dict[str, str]:
    """Facts of the check against the published values.

    Parameters
    ----------
    timings
        the authors'.
    ledger
        as in `ledger_table`.
    counts
        from `companion.inference.published_count.count_table`.
    """
    drawn = pd.read_csv(data_dir() / "inference_fit_rows.csv")["times_drawn"]
    short = search_shortfall(timings, "transformer", "400m", "step_time")
    facts = {
        "c8_num_reproduced": f"{(ledger['verdict'] == REPRODUCED).sum()} of {len(ledger)}",
        "c8_num_following": number_word(int((ledger["quantity"] == "alpha_over_peak").sum())).capitalize(),
        "c8_largest_difference": power_of_ten(_with_relative(ledger)["relative"].abs().max(), 1),
        "c8_never_drawn": percent((drawn == 0).mean()),
        "c8_most_drawn": number_word(int(drawn.max())),
        "c8_search_excess": percent(short["excess"]),
        "c8_search_eps": f"{percent(abs(short['eps_s']))} {'larger' if short['eps_s'] > 0 else 'smaller'}",
    }
    for name, own in counts.groupby("architecture"):
        prefill, step = own["prefill_long"] - 1, own["step"] - 1
        facts[f"c8_count_prefill_{name}"] = span_text(prefill)
        facts[f"c8_count_step_{name}"] = span_text(-step)
        facts[f"c8_count_short_{name}"] = span_text(own["prefill_short"] - 1)
    return facts


def constants_figure(effects: pd.DataFrame) -> Html:
    """The constants of the time to first token; `effects` from `companion.chapters.ch08.draws.draw_effects`."""
    return show(
        constants_over_draws(effects[effects["quantity"] == "ttft"], "eps_s", "ε, first token (ms)", 1e-3),
        name="inference-draws",
        alt="The constant of every size by the published procedure: on one resample, on every timing once, and a "
        "bar over resamples.",
        caption="The constant ε of the time to first token by the published procedure. Filled: on the one resample "
        "that was drawn, as published; hollow: on every timing once; bars: 95 % of further resamples.",
    )


def ratios_figure(ratios: pd.DataFrame, prompt: int) -> Html:
    """Ratios of the prefill times of a prompt; `ratios` from `companion.chapters.ch08.draws.prefill_ratios`."""
    return show(
        ratios_over_draws(ratios, "xLSTM / Transformer"),
        name="inference-draw-ratios",
        alt="Ratio of the prefill times at every size: crosses for measurements, squares for the fitted form, bars "
        "over resamples.",
        caption=f"Time to first token of the xLSTM over that of the Transformer at equal size, prompt of "
        f"{tokens_text(prompt)} tokens, B = 1: measured, and by the published form.",
    )


def draw_facts(
    timings: pd.DataFrame, fits: DrawnFits, effects: pd.DataFrame, ratios: pd.DataFrame, prompt: int
) -> dict[str, str]:
    """Facts of what the one resample moved, and what it did not.

    Parameters
    ----------
    timings
        the authors'.
    fits, effects
        from `companion.chapters.ch08.draws`: `drawn_and_once`, and `draw_effects` of it.
    ratios
        of a long prompt of `prompt` tokens.
    """
    first, steps = (effects[effects["quantity"] == quantity] for quantity in ("ttft", "step_time"))
    eps, rates = first[first["parameter"] == "eps_s"], first[first["parameter"] != "eps_s"]
    outside = (~ratios["measured"].between(ratios["low"], ratios["high"])).sum()
    short = prefill_ratios(timings, fits, SHORT_PROMPT)
    drawn, once = (share_in_words(int((short[column] <= 0).sum()), len(short)) for column in ("drawn", "once"))
    change, size, batch = largest_step_change(timings)
    return {
        "c8_draw_moved": share_in_words(int((eps["shift"].abs() > 0.1).sum()), len(eps)),
        "c8_draw_median": percent(eps["shift"].abs().median()),
        "c8_draw_rates": percent(rates["shift"].abs().max()),
        "c8_draw_steps": percent(steps["shift"].abs().max()),
        "c8_draw_signs": share_in_words(int(((eps["low"] < 0) & (eps["high"] > 0)).sum()), len(eps)),
        "c8_long_prompt": tokens_text(prompt),
        **{f"c8_lower_{column}": span_text(1 - ratios[column]) for column in ("measured", "drawn", "once")},
        "c8_draw_outside": share_in_words(int(outside), len(ratios)),
        "c8_short_prompt": f"{SHORT_PROMPT}",
        "c8_short_negative": f"{drawn} sizes, with the resample or without it"
        if drawn == once
        else f"{drawn} sizes on its resample and {once} on every timing",
        "c8_step_change": f"{percent(change)} (size {size}, B = {batch})",
        "c8_short_measured": f"{short['measured'].min():.2f} to {short['measured'].max():.2f}",
    }


def largest_step_change(timings: pd.DataFrame, architecture: str = "xlstm") -> tuple[float, str, int]:
    """By how much the measured step time of one size and batch changes over the contexts, at most.

    Returns
    -------
    tuple
        longest over shortest time, minus 1; the size; the batch.
    """
    steps = timings[(timings["architecture"] == architecture) & timings["step_time_s"].notna()]
    ends = steps.groupby(["model_size", "batch_size"])["step_time_s"].agg(["min", "max"])
    change = (ends["max"] / ends["min"] - 1).reset_index(name="change")
    most = change.sort_values("change").iloc[-1]
    return float(most["change"]), str(most["model_size"]), int(most["batch_size"])


def _with_relative(ledger: pd.DataFrame) -> pd.DataFrame:
    return ledger.assign(relative=ledger["ours"] / ledger["published"] - 1)
