"""Chapter 8: the published fits beside ours, how the authors count, and what their one resample did."""

import pandas as pd

from companion.chapters.ch08.common import PARAMETER_UNITS
from companion.chapters.ch08.draw_figures import constants_over_draws, ratios_over_draws
from companion.chapters.ch08.draws import DrawnFits, prefill_ratios
from companion.chapters.ch08.figures import tokens_text
from companion.formatting import percent, significant
from companion.inference.published import search_shortfall
from companion.paths import data_dir
from companion.plotting import Html, show, show_table
from companion.plotting.style import architecture_label

#: A short prompt (tokens) at which the published form is tried.
SHORT_PROMPT = 512
_PARTS = ("mixer_core", "gates", "norms", "weights", "activations")


def ledger_table(ledger: pd.DataFrame) -> Html:
    """Published parameters of the runtime models and ours; `ledger` from `companion.ledger.to_frame`."""
    return show_table(
        _with_relative(ledger)[["entry", "quantity", "published", "ours", "relative", "verdict"]],
        caption="Published parameters of the runtime model and ours, by the authors' procedure.",
        formats={"published": "{:.7g}", "ours": "{:.7g}", "relative": "{:+.0e}"},
        labels={"relative": "ours / published − 1"},
    )


def counts_table(counts: pd.DataFrame) -> Html:
    """The authors' count over ours; `counts` from `companion.inference.published_count.count_table`."""
    return show_table(
        counts.assign(architecture=counts["architecture"].map(architecture_label)),
        caption="The authors' count over ours: FLOPs of a prefill of 128 and of 16,384 tokens, bytes of the step "
        "after the longer one (B = 8). Between them: the terms of the difference, as shares of our count; they add "
        "up.",
        formats=dict.fromkeys(("prefill_short", "prefill_long", "step"), "{:.4f}") | dict.fromkeys(_PARTS, "{:+.2%}"),
        labels={"prefill_short": "prefill, T = 128", "prefill_long": "T = 16k", "mixer_core": "attention or cell"}
        | {"step": "step (bytes)"},
    )


def published_facts(timings: pd.DataFrame, ledger: pd.DataFrame, counts: pd.DataFrame) -> dict[str, str]:
    """Facts of the check against the published values.

    Parameters
    ----------
    timings
        the authors'.
    ledger, counts
        as in `ledger_table` and `counts_table`.
    """
    drawn = pd.read_csv(data_dir() / "inference_fit_rows.csv")["times_drawn"]
    short = search_shortfall(timings, "transformer", "400m", "step_time")
    far = counts.sort_values("prefill_long", kind="stable").iloc[-1]
    of_xlstm = (counts.loc[counts["architecture"] == "xlstm", "prefill_long"] - 1).abs()
    model = f"{architecture_label(far['architecture'])} {far['model_size']}"
    return {
        "c8_num_reproduced": f"{(ledger['verdict'] == 'reproduced').sum()} of {len(ledger)}",
        "c8_largest_difference": f"{_with_relative(ledger)['relative'].abs().max():.0e}",
        "c8_never_drawn": percent((drawn == 0).mean()),
        "c8_most_drawn": f"{drawn.max()}",
        "c8_search_excess": percent(short["excess"]),
        "c8_search_eps": f"{percent(abs(short['eps_s']))} {'larger' if short['eps_s'] > 0 else 'smaller'}",
        "c8_count_farthest": f"{model}, {percent(far['prefill_long'] - 1)}",
        "c8_count_xlstm": percent(of_xlstm.max()),
    }


def constants_figure(effects: pd.DataFrame) -> Html:
    """The constants of the time to first token; `effects` from `companion.chapters.ch08.draws.draw_effects`."""
    return show(
        constants_over_draws(
            effects[effects["quantity"] == "ttft"], "eps_s", "ε of the time to first token (ms)", 1e-3
        ),
        name="inference-draws",
        alt="The constant of every size by the published procedure: on one resample, on every timing once, and a "
        "bar over resamples.",
        caption="The constant ε by the published procedure. Filled: on the resample that was drawn, as published; "
        "hollow: on every timing once; bars: 95 % of the resamples.",
    )


def effects_table(effects: pd.DataFrame) -> Html:
    """All constants on the one resample, on every timing once, and over resamples."""
    units = [PARAMETER_UNITS[parameter] for parameter in effects["parameter"]]
    shown = effects.assign(
        architecture=effects["architecture"].map(architecture_label), parameter=[label for label, _ in units]
    )
    for column in ("drawn", "once", "low", "high"):
        shown[column] = [significant(v / scale) for v, (_, scale) in zip(effects[column], units, strict=True)]
    shown["interval"] = shown["low"] + " to " + shown["high"]
    return show_table(
        shown[["quantity", "architecture", "model_size", "parameter", "drawn", "once", "interval", "rank"]],
        caption="All constants by the published procedure: on its one resample, and on every timing once with 95 % "
        "of the resamples. Rank: share of the resamples below the published one.",
        formats={"rank": "{:.0%}"},
        labels={"drawn": "one resample", "once": "every timing once", "interval": "95 % interval"},
    )


def ratios_figure(ratios: pd.DataFrame, prompt: int) -> Html:
    """Ratios of the prefill times of a prompt; `ratios` from `companion.chapters.ch08.draws.prefill_ratios`."""
    return show(
        ratios_over_draws(ratios, "TTFT, xLSTM / Transformer"),
        name="inference-draw-ratios",
        alt="Ratio of the prefill times at every size: crosses for measurements, squares for the fitted form, bars "
        "over resamples.",
        caption=f"Prefill of {tokens_text(prompt)} tokens, B = 1, at equal size: measured, and by the published form.",
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
    first = effects[effects["quantity"] == "ttft"]
    eps, rates = first[first["parameter"] == "eps_s"], first[first["parameter"] != "eps_s"]
    inside = ratios["measured"].between(ratios["low"], ratios["high"]).sum()
    short = prefill_ratios(timings, fits, SHORT_PROMPT)
    return {
        "c8_draw_moved": f"{(eps['shift'].abs() > 0.1).sum()} of {len(eps)}",
        "c8_draw_median": percent(eps["shift"].abs().median()),
        "c8_draw_rates": percent(rates["shift"].abs().max()),
        "c8_draw_signs": f"{((eps['low'] < 0) & (eps['high'] > 0)).sum()}",
        "c8_long_prompt": tokens_text(prompt),
        **{f"c8_lower_{column}": _lower(ratios[column]) for column in ("measured", "drawn", "once")},
        "c8_draw_inside": f"{inside} of {len(ratios)}",
        "c8_short_drawn": f"{(short['drawn'] <= 0).sum()} of {len(short)}",
        "c8_short_once": f"{(short['once'] <= 0).sum()}",
        "c8_short_measured": f"{short['measured'].min():.2f} to {short['measured'].max():.2f}",
    }


def _with_relative(ledger: pd.DataFrame) -> pd.DataFrame:
    return ledger.assign(relative=ledger["ours"] / ledger["published"] - 1)


def _lower(ratios: pd.Series) -> str:
    return f"{percent(1 - ratios.max())} to {percent(1 - ratios.min())}"
