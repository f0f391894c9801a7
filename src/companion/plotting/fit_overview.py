"""One fit at a glance: its contours with the runs, and its residuals."""

import numpy as np
from matplotlib.figure import Figure

from companion.fitting.fit import Fit
from companion.formatting import percent, significant
from companion.plotting.embed import Html, show
from companion.plotting.style import INK, LABELS, count_ticks, percent_ticks, subplots


def fit_overview(fit: Fit) -> Figure:
    """Left: contours of the fitted loss over N and D, with the runs. Right: observed over fitted loss − 1, over N·D."""
    used = fit.data[fit.data["weight"] > 0]
    size, tokens = used["num_params"].to_numpy(), used["num_tokens"].to_numpy()
    figure, (left, right) = subplots(1, 2, height=3.4)
    n = np.geomspace(size.min() / 1.3, size.max() * 1.3, 80)
    d = np.geomspace(tokens.min() / 1.3, tokens.max() * 1.3, 80)
    loss = fit.law.predict(n[None, :], d[:, None])
    contours = left.contour(n, d, loss, levels=9, cmap="viridis", linewidths=1.2)
    left.clabel(contours, fontsize=8, fmt="%.2f")
    left.plot(size, tokens, ".", color=INK, markersize=3.5)
    left.set(xscale="log", yscale="log", xlabel=LABELS["num_params"], ylabel=LABELS["num_tokens"])
    right.plot(size * tokens, np.expm1(fit.residuals[fit.data["weight"] > 0]), ".", color=INK, markersize=4)
    right.axhline(0, color="#888888", linewidth=1)
    right.set(xscale="log", xlabel="parameters × tokens N·D", ylabel="observed over fitted loss − 1 (%)")
    percent_ticks(right.yaxis)
    for axis in (left.xaxis, left.yaxis):
        count_ticks(axis, (1.0, 3.0))
    return figure


def show_fit(fit: Fit) -> Html:
    """The overview with a caption that names the parameters and how the fit ended."""
    values = ", ".join(f"{name} = {significant(value, 4)}" for name, value in fit.parameters.items())
    scatter = float(np.sqrt(np.average(fit.residuals**2, weights=fit.data["weight"])))
    caption = f"{values}; {fit.num_rows} runs, residuals {percent(scatter)} rms; {fit.status}. {fit.status_detail}"
    return show(
        fit_overview(fit),
        name="fit-overview",
        alt=f"Contours of the fitted loss over parameters and tokens with {fit.num_rows} runs, and the residuals.",
        caption=caption.strip(),
    )
