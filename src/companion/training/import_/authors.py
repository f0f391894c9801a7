"""The released logs of xLSTM Scaling Laws (github.com/NX-AI/xlstm_scaling_laws, folder `data`), from their pickles.

A file maps a tag to a list of runs; a run has `config` (names with dots), `metadata` (of the machine), `summary` and
`logs`: one data frame a metric, with `_step` and the metric. Of these, only what is named below is read.
"""

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import plural
from companion.training.import_.run_log import RunLog, make_history
from companion.training.import_.unpickle import load_data

#: The ten released files by git's name of their content, at `companion.training.import_.clone.COMMIT`.
RELEASED = {
    "isoflop_llama_ctx16384_wandb_data.pkl": "3fa89896e75a6c5c05b30454b5dc6e2fe7ded4fd",
    "isoflop_llama_ctx2048_wandb_data.pkl": "46317a44c5abc4c2fe4516b8a305f2187219861e",
    "isoflop_llama_ctx8192_flops_chinchilla_wandb_data.pkl": "9cc51bd8458022b55a435cca70bf79cbba30946e",
    "isoflop_llama_ctx8192_wandb_data.pkl": "e9f1f9bb29f7ea16dc17e513bafdbf08bdfdb9c1",
    "isoflop_mlstm_ctx16384_wandb_data.pkl": "b434f401636a80ee9e1e6f151568cb490ad14ea4",
    "isoflop_mlstm_ctx2048_wandb_data.pkl": "799f39ce57190763f58ee01a6f825adba2e32fdc",
    "isoflop_mlstm_ctx8192_large_gbs256_wandb_data.pkl": "38583c229acc1bf306a14f39529e1c807540662d",
    "isoflop_mlstm_ctx8192_wandb_data.pkl": "8cb06cf0e5a1b6627eaf229f667fffc9d509073e",
    "tokenparam_llama_wandb_data.pkl": "b386b223739a66ca2a7012ba42785a51620cdc25",
    "tokenparam_mlstm_wandb_data.pkl": "1210dc6ec18ea1447f713c9e8c58a68c040c9306",
}
_PREFIX, _SUFFIX = "model.model_config.", "_wandb_data"
_METRICS = {
    "train_loss": "train/.loss_mean",
    "val_loss": "val/.dclm_loss",
    "grad_norm": "train/.grad_norm_mean",
    "step_time_s": "train/.step_time",
}
_NAMED_CONTEXT = re.compile(r"_ctx(\d+)_")


def released_as(name: str, data: bytes) -> bool | None:
    """Whether a file is byte for byte the released one of its name; None if none of that name was released."""
    digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return None if name not in RELEASED else digest == RELEASED[name]


def read_authors(data: bytes, source: Path) -> tuple[list[RunLog], list[str]]:
    """The runs of one released file, and what of it was left out, in words.

    Parameters
    ----------
    data
        bytes of the file.
    source
        its path; the name says the study, and begins the keys of the runs.

    Returns
    -------
    (list of RunLog, list of str)
        In the token-parameter studies, records of one name are stretches of one training, which was stopped and
        resumed; elsewhere each record is a training of its own.

    Raises
    ------
    InputError
        one line that names the file: a pickle that is refused or cut off, or without such runs.
    """
    value = load_data(data, str(source))
    groups = value.values() if isinstance(value, dict) else [value]
    records = [run for group in groups if isinstance(group, list | tuple) for run in group]
    if not records or not all(isinstance(run, dict) and isinstance(run.get("config"), dict) for run in records):
        raise InputError(f"{source}: is not a file of the released training logs: it holds no runs with a config")
    study = source.stem.removesuffix(_SUFFIX)
    groups_of_one = [[run] for run in records]
    if study.startswith("tokenparam"):
        named: dict[str, list[Any]] = {}
        for run in sorted(records, key=lambda run: str(run.get("created_at"))):
            named.setdefault(str(run.get("name")), []).append(run)
        groups_of_one = list(named.values())
    found, empty = [], 0
    for number, stretches in enumerate(groups_of_one):
        history = pd.concat([_history(run) for run in stretches], ignore_index=True)
        empty += history.empty
        if not history.empty:
            where = f"{source} (run {number})"
            log = RunLog(run=f"{study}-{number:03d}", where=where, history=history)
            log.settings = _settings(stretches[-1], study, where)
            found.append(log)
    notes = [f"{source.name}: {plural(empty, 'run')} left out that logged no step"] if empty else []
    return found, notes


def _history(run: dict[str, Any]) -> pd.DataFrame:
    """The metrics of a run side by side by step; infinite where a logged value was not finite."""
    columns = {}
    for name, key in _METRICS.items():
        frame = (run.get("logs") or {}).get(key)
        if not isinstance(frame, pd.DataFrame) or not {"_step", key} <= set(frame.columns):
            continue
        # wandb writes what is not finite as text
        numbers = pd.to_numeric(frame[key], errors="coerce").astype(float).replace([np.nan, -np.inf], np.inf)
        columns[name] = pd.Series(numbers.to_numpy(), index=frame["_step"].to_numpy(float)).groupby(level=0).last()
    if not columns:
        return make_history({})
    table = pd.DataFrame(columns).sort_index()
    return make_history({"step": table.index.to_numpy(), **{name: table[name].to_numpy() for name in columns}})


def _settings(run: dict[str, Any], study: str, where: str) -> dict[str, Any]:
    config, summary = run["config"], run.get("summary") or {}
    kind = str(config.get("model.model_class", ""))
    architecture = "xlstm" if "xlstm_lm" in kind else "transformer" if "llama" in kind.lower() else None
    if architecture is None:
        raise InputError(f"{where}: model class {kind[:80]!r} is neither of the two that the authors trained")
    schedule, parallel = _mapping_in(config.get("optimizer.scheduler")), summary.get("parallel/") or {}
    data = summary.get("dataset/") or {}
    found = {
        "architecture": architecture,
        "context_length": config.get(f"{_PREFIX}context_length") or _context(str(run.get("name"))),
        "vocab_size": config.get(f"{_PREFIX}vocab_size"),
        "train_steps": data.get("num_train_steps") or schedule.get("decay_steps"),
        "batch_size_seqs": data.get("global_batch_size") or _logged(run, "dataset/.global_batch_size"),
        "learning_rate": schedule.get("lr"),
        "warmup_steps": schedule.get("warmup_steps"),
        "cooldown_steps": schedule.get("cooldown_steps"),
        "num_gpus": parallel.get("num_devices") or _gpus(run.get("metadata") or {}),
        "fsdp_size": parallel.get("fsdp_axis_size"),
        "group": _group(study),
        **_shapes(config, architecture),
    }
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def _logged(run: dict[str, Any], key: str) -> float | None:
    """The last logged value of a metric that a summary may lack."""
    frame = (run.get("logs") or {}).get(key)
    return float(frame[key].iloc[-1]) if isinstance(frame, pd.DataFrame) and key in frame and len(frame) else None


def _shapes(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    width, layers = (config.get(f"{_PREFIX}{name}") for name in ("embedding_dim", "num_blocks"))
    found = {"d_model": width, "n_layers": layers}
    if architecture == "transformer":
        head = config.get(f"{_PREFIX}head_dim")
        heads = width // head if width and head else None
    else:
        heads = config.get(f"{_PREFIX}mlstm_block.mlstm.num_heads")
        head = width // heads if width and heads else None
    factor = 1.0 if architecture == "transformer" else config.get(f"{_PREFIX}mlstm_block.mlstm.qk_dim_factor")
    return found | {"n_heads": heads, "d_hv": head, "d_qk": int(head * factor) if head and factor else None}


def _group(study: str) -> str:
    if "gbs256" in study:
        return "batch_256"
    if "flops_chinchilla" in study:
        return "isoflop_budget_by_chinchilla_count"
    return "tokenparam" if study.startswith("tokenparam") else "isoflop"


def _context(name: str) -> int | None:
    match = _NAMED_CONTEXT.search(name)
    return int(match[1]) if match else None


def _gpus(metadata: dict[str, Any]) -> int | None:
    """Nodes times GPUs of a node."""
    job = metadata.get("slurm") or {}
    nodes, here = str(job.get("job_num_nodes", "")), metadata.get("gpu_count")
    return int(nodes) * here if nodes.isdigit() and isinstance(here, int) else None


def _mapping_in(text: Any) -> dict[str, Any]:
    """A mapping that was logged as text; `literal_eval` reads numbers and text only."""
    try:
        value = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError):
        return {}
    return value if isinstance(value, dict) else {}
