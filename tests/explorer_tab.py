"""A browser's page of the explorer, settings to drive it with, and what counts as the same number."""

import itertools
import math
import random
from dataclasses import asdict
from typing import Any

from companion.explorer import CONTROLS, Setting
from companion.hardware import known_hardware

#: How closely the page agrees with the package.
RELATIVE = 1e-6
_LOUD = {"error", "warning"}


class Tab:
    """An open page, with what went wrong in it."""

    def __init__(self, browser: Any, address: str, home: str, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **context)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in _LOUD else None)
        self.page.on("request", lambda sent: None if sent.url.startswith(home) else self.strangers.append(sent.url))
        self.page.goto(address, wait_until="load")

    def ready(self) -> "Tab":
        """Wait until all plots are drawn."""
        self.page.wait_for_function("document.querySelectorAll('#explorer .main-svg .scatterlayer path').length > 16")
        return self

    def open(self, link: str) -> None:
        """Follow a link to a setting."""
        self.page.evaluate("link => { location.hash = link; }", link)
        self.rest()

    def rest(self) -> None:
        """Wait until what was scheduled is drawn and the address is written."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.page.wait_for_timeout(450)

    def setting(self) -> dict[str, Any]:
        return dict(self.page.evaluate("companionExplorer.setting()"))

    def numbers(self, setting: Setting) -> dict[str, Any]:
        return dict(self.page.evaluate("setting => companionExplorer.evaluate(setting)", asdict(setting)))

    def texts(self) -> dict[str, list[str]]:
        """Number, interval and flag of every cell of the table."""
        cells = "[...document.querySelectorAll('#explorer td[data-key]')]"
        keys = self.page.evaluate(f"{cells}.map(cell => cell.dataset.key + ' ' + cell.dataset.architecture)")
        parts = self.page.evaluate(f"{cells}.map(cell => [...cell.children].map(part => part.textContent))")
        return dict(zip(keys, parts, strict=True))

    def notes(self) -> str:
        return str(self.page.inner_text(".companion-explorer-notes"))


def some_settings() -> list[Setting]:
    """40 at random, and all corners of the sliders with the compute-optimal model among them."""
    rng, names = random.Random(4), list(known_hardware())
    found = []
    for _ in range(40):
        values: dict[str, Any] = {control.name: rng.choice(control.steps) for control in CONTROLS}
        if rng.random() < 0.3:
            values["tokens_per_param"] = None
        found.append(values | {"hardware": rng.choice(names)})
    ends = {control.name: [control.steps[0], control.steps[-1]] for control in CONTROLS}
    ends["tokens_per_param"].append(None)  # type: ignore[arg-type]
    for corner in itertools.product(*ends.values()):
        found.append(dict(zip(ends, corner, strict=True)) | {"hardware": names[len(found) % len(names)]})
    whole = ("context_length", "batch_size")
    return [Setting(**{n: int(v) if n in whole else v for n, v in values.items()}) for values in found]


def settings_of_hours() -> list[Setting]:
    """At, between and beyond the context lengths of the training logs, on their hardware and on other."""
    contexts = (1024, 2048, 3000, 8192, 12000, 16384, 20000)
    models = ((3e19, 22.0, "h100-sxm"), (1e21, None, "l40s"), (2e22, 550.0, "mi300x"))
    return [
        Setting(train_flops=flops, context_length=context, tokens_per_param=ratio, hardware=hardware)
        for context in contexts
        for flops, ratio, hardware in models
    ]


def same(ours: Any, theirs: Any, where: str) -> None:
    """Equal, numbers to `RELATIVE`."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), f"{where}: {ours} {theirs}"
        for each, other in zip(ours, theirs, strict=True):
            same(each, other, where)
    elif ours is None or isinstance(ours, bool | str):
        assert ours == theirs, where
    else:
        assert math.isclose(ours, theirs, rel_tol=RELATIVE), f"{where}: {ours} {theirs}"
