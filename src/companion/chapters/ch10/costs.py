"""Chapter 10: what each kernel must cost, and lines of the kernels that do it."""

from collections.abc import Mapping, Sequence

import pandas as pd
from IPython.display import Markdown, display

from companion.accounting.kernel_costs import (
    CARRIED_TILE,
    KERNEL_PRECISION,
    KernelCost,
    best_kernel_chunk,
    cell_kernel_costs,
    chunk_size_scan,
    cost_table,
    keeps_states,
    pass_bytes,
    pass_seconds,
)
from companion.accounting.mlstm_forms import mlstm_form_table
from companion.architectures import XLSTM
from companion.chapters.ch10 import figures
from companion.chapters.ch10.shown import Shown
from companion.chapters.ch10.source import block_sizes, kernel_source
from companion.formatting import count, listed, percent, power_of_ten, significant
from companion.plotting import Html, show, show_table

Costs = Sequence[KernelCost]


def show_forms(shown: Shown) -> Html:
    """FLOPs, bytes and least time of the forms as one pass each."""
    forms = form_costs(shown)
    return show_table(
        forms.assign(ns=1e9 * forms["seconds_per_token"]).drop(columns="seconds_per_token"),
        name="kernel-forms-cost",
        caption="Least times of the forms. FLOPs, bytes and least time of each form as one pass: forward, one layer of "
        f"{shown.label} at T = {shown.context}, states in float32 as in chapter 8, roofline of {shown.timings.gpu}.",
        formats={"flops_per_token": power_of_ten, "bytes_per_token": power_of_ten}
        | {"arithmetic_intensity": significant, "ns": significant},
        labels={"chunk_size": "L (tokens)", "flops_per_token": "FLOP per token", "bytes_per_token": "bytes per token"}
        | {"arithmetic_intensity": "FLOP per byte", "ns": "ns per token"},
    )


def form_costs(shown: Shown) -> pd.DataFrame:
    """Every form as one pass (`accounting.mlstm_forms.mlstm_form_table`), one layer of the heads of the page."""
    cell = shown.cell
    layer = XLSTM(d_model=cell.n_heads * cell.d_hv, n_layers=1, n_heads=cell.n_heads, d_qk=cell.d_qk, d_hv=cell.d_hv)
    return mlstm_form_table(layer, shown.context, hardware=shown.peaks, convention="tfla")


def times_of_forms(shown: Shown) -> str:
    """The least times of a token in the three forms, the chunkwise one at its best chunk, as a list."""
    forms = form_costs(shown).set_index("form")
    nanoseconds = {form: significant(1e9 * seconds) for form, seconds in forms["seconds_per_token"].items()}
    best = "chunkwise, least seconds"
    return listed([f"{nanoseconds[form]} ns in the {form} form" for form in ("recurrent", "parallel")]) + (
        f", against {nanoseconds[best]} ns in chunks of {forms['chunk_size'][best]:.0f} tokens"
    )


def show_costs(shown: Shown, costs: pd.DataFrame) -> Html:
    """Every kernel of a pass with its FLOPs, bytes and least time (`accounting.kernel_costs.cost_table`)."""
    table = costs.assign(kernel=costs["kernel"].str.replace("_", " "))
    table["bound"] = table["compute_bound"].map({True: "compute", False: "memory"})
    cell = shown.cell
    return show_table(
        table[["kernel", "stage", "flops", "bytes", "arithmetic_intensity", "seconds", "bound"]],
        name="kernel-costs",
        caption=f"Least time of every kernel. On {shown.timings.gpu}, whose ridge is at {shown.peaks.ridge:.0f} FLOP "
        f"per byte: H × (d_qk, d_hv) = {shown.label}, {count(cell.num_tokens)} tokens, L = {cell.chunk_size}, bf16.",
        formats={
            "flops": power_of_ten,
            "bytes": lambda v: f"{v / 1e9:.2f}",
            "arithmetic_intensity": "{:.0f}",
            "seconds": lambda v: f"{1e3 * v:.3f}",
        },
        labels={"flops": "FLOP", "bytes": "GB", "arithmetic_intensity": "FLOP per byte", "seconds": "least time (ms)"}
        | {"bound": "limited by"},
    )


def show_chunk_scan(shown: Shown, scans: Mapping[str, pd.DataFrame]) -> Html:
    """Least time of forward and backward by chunk length, for all timed heads (states through memory)."""
    best = {name: best_kernel_chunk(scan, "forward+backward") for name, scan in scans.items()}
    return show(
        figures.chunk_scan(scans, best),
        name="kernel-chunks",
        alt="Stacked bars of roofline times by chunk length for three sets of heads, falling from chunks of 16 to "
        "chunks of 256.",
        caption="Least time of forward and backward by chunk length where all states go through memory, "
        f"{count(shown.cell.num_tokens)} tokens; panels: H × (d_qk, d_hv). The outlined bar is the lowest. Short "
        "chunks spend most of their time on moving states. Where these take more memory than q, k, v and h, the "
        "backward pass computes them again.",
    )


def limits(costs: pd.DataFrame) -> str:
    """A verdict: how many kernels are limited by compute."""
    bound = costs["compute_bound"].sum()
    if not bound:
        return "every kernel waits for memory"
    return f"{bound} of {len(costs)} kernels are limited by compute"


def kept_verdict(shown: Shown) -> str:
    """A verdict: whether the backward pass finds the states in memory, and what that costs and saves."""
    kept, again = (cell_kernel_costs(shown.cell, carried_tile=CARRIED_TILE, keep_states=x) for x in (True, False))
    if not keeps_states(shown.cell):
        return "For these heads and chunks it writes no states, and the backward pass computes them again"
    more = (pass_bytes(kept) - pass_bytes(again)) / 1e9
    both, instead = (pass_bytes(costs, "forward+backward") / 1e9 for costs in (kept, again))
    return (
        f"In training it also writes the state at the start of every chunk, {more:.1f} GB, for the backward pass. "
        f"Together the two passes then move {both:.1f} GB, where they would move {instead:.1f} GB if the backward pass "
        "computed the states again"
    )


def cost_facts(shown: Shown, trained: Costs, scans: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """Peaks, best chunks, and what tiles and a carried state save; `trained` are the kernels of a training step."""
    cell, peaks = shown.cell, shown.peaks
    costs = cost_table(trained, peaks)
    longer = chunk_size_scan(cell, peaks, chunk_sizes=[2**k for k in range(4, 13)], keep_states=True)
    best = listed([f"{best_kernel_chunk(scan, 'forward+backward')} for {name}" for name, scan in scans.items()])
    tiled = cell_kernel_costs(cell, tile=64, carried_tile=CARRIED_TILE, keep_states=keeps_states(cell))
    # forward passes without a gradient
    through, carried = cell_kernel_costs(cell), cell_kernel_costs(cell, carried_tile=CARRIED_TILE)
    less, fewer = (1 - sum(getattr(c, name) for c in tiled) / costs[name].sum() for name in ("flops", "bytes"))
    facts: dict[str, object] = {
        "c10_peaks": f"{peaks.peak_flops_per_s / 1e12:.0f} TFLOP/s and {peaks.peak_bytes_per_s / 1e12:.2f} TB/s on "
        f"{shown.timings.gpu}",
        "c10_form_times": times_of_forms(shown),
        "c10_limits": f"At L = {cell.chunk_size}{',' if costs['compute_bound'].any() else ''} {limits(costs)}",
        "c10_best_chunks": best,
        "c10_free_chunk": best_kernel_chunk(longer, "forward+backward"),
        "c10_tiles_flops": percent(less),
        "c10_tiles_bytes": percent(fewer),
    }
    for name, kernels in (("through", through), ("carried", carried)):
        facts[f"c10_{name}_gb"] = f"{pass_bytes(kernels) / 1e9:.1f}"
        facts[f"c10_{name}_ms"] = f"{1e3 * pass_seconds(kernels, peaks):.2f}"
    of_states = 2 * cell.num_chunks * cell.n_heads * cell.d_qk * cell.d_hv * KERNEL_PRECISION.bytes_per_state
    moved = sum(c.bytes for c in through if c.stage == "forward" and c.kernel in ("states", "outputs"))
    wide = state_blocks(shown)
    return facts | {
        "c10_states_share": percent(of_states / moved),
        "c10_states_kept": kept_verdict(shown),
        "c10_tile": CARRIED_TILE,
        "c10_blocks": f"{wide['BLOCK_K']} × {wide['BLOCK_V']} numbers for heads of {cell.d_qk} and {cell.d_hv}",
    }


def state_blocks(shown: Shown, kernel: str = "states", **few: int) -> dict[str, int]:
    """Blocks of `states` or `state_gradients` for the cell; `few`: `chains` and `multiprocessors` of `block_sizes`.

    Where Triton is not installed, 128 × 128 of states and 64 × 128 of their gradients.
    """
    cell = shown.cell
    found = block_sizes(kernel, d_qk=cell.d_qk, d_hv=cell.d_hv, chunk_size=cell.chunk_size, **few)
    return {"BLOCK_K": 128 if kernel == "states" else 64, "BLOCK_V": 128} | found


def show_code(module: str, function: str, *, after: str, before: str) -> Markdown:
    """Lines of a Triton kernel of the mLSTM, read from the source (`source.kernel_source`), below their origin."""
    text = kernel_source(f"companion.kernels.mlstm.{module}", function, after=after, before=before)
    # the paragraph of a caption: the button of a fold around the cell is named after it
    display(Html(f'<p class="companion-caption">Lines of <code>{function}</code> ({module}.py)</p>'))
    return Markdown(f"```python\n{text}\n```")
