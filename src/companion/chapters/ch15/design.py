"""Chapter 15: what the design asks for, what it takes, and what is trained of it."""

import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch15.study import EXPERIMENTS, HARDWARE, OwnStudy, part_of
from companion.chapters.labels import label_of
from companion.formatting import count, listed, percent, plural, power_of_ten, significant, span_text
from companion.hardware import get_hardware
from companion.plotting import Html, show_table

_HOUR, _GIB = 3600.0, 2.0**30


def plan_of(study: OwnStudy) -> pd.DataFrame:
    """The plan, ordered by part, context and architecture; leaves out the section of a study without one."""
    need(study.plan is not None, "no design is given (design_file)")
    assert study.plan is not None
    kinds = {name: rank for rank, name in enumerate(EXPERIMENTS)}
    plan = study.plan.assign(
        part=study.plan.apply(part_of, axis="columns"), rank=study.plan["experiment"].map(kinds).fillna(len(kinds))
    )
    order = ["rank", "experiment", "isoflop_budget", "context_length", "architecture", "num_params"]
    return plan.sort_values(order, kind="stable", ignore_index=True)


def show_plan(study: OwnStudy) -> Html:
    """A row per part of the design: runs, FLOPs, memory and predicted time, and what share is trained."""
    rows = []
    for (part, length), group in plan_of(study).groupby(["part", "context_length"], sort=False):
        done = group[group["trained"]]
        rows.append(
            {
                "part": part,
                "context": f"{length:,}",
                "runs": len(group),
                "trained": len(done),
                "flops": power_of_ten(group["train_flops"].sum()),
                "share": percent(done["train_flops"].sum() / group["train_flops"].sum()),
                "memory": significant(group["memory_bytes"].max() / _GIB, 2),
                "minutes": significant(group["seconds"].sum() / 60, 2),
            }
        )
    return show_table(
        pd.DataFrame(rows),
        name="study-plan",
        caption="The design by part. Memory is that of the largest run, and the time is that of all runs one after the "
        f"other on one {get_hardware(HARDWARE).label}; both are predicted before anything starts.",
        labels={
            "context": "context T",
            "flops": "C (FLOP)",
            "share": "share of C trained",
            "memory": "memory (GiB)",
            "minutes": "time (min)",
        },
    )


def show_missing(study: OwnStudy) -> Html:
    """Planned runs without a record: how many, and of which sizes, by part, context and architecture."""
    missing = plan_of(study)
    missing = missing[~missing["trained"]]
    rows = [
        {
            "part": part,
            "context": f"{length:,}",
            "architecture": label_of(str(name)),
            "runs": len(group),
            "sizes": listed(dict.fromkeys(group.sort_values("num_params")["size"])),
            "seeds": listed(sorted(group["seed"].unique())),
        }
        for (part, length, name), group in missing.groupby(["part", "context_length", "architecture"], sort=False)
    ]
    columns = ["part", "context", "architecture", "runs", "sizes", "seeds"]
    nothing = [dict.fromkeys(columns, "–") | {"part": "none", "runs": 0}]
    return show_table(
        pd.DataFrame(rows or nothing, columns=columns),
        name="study-missing",
        caption="Runs that are planned and not trained. Sizes are those of the ladder of the package.",
        labels={"context": "context T"},
    )


def plan_facts(study: OwnStudy) -> dict[str, object]:
    """Values of the section on design and cost."""
    plan = plan_of(study)
    done = plan[plan["trained"]]
    left = plan[~plan["trained"]]
    return {
        "c15_num_planned": f"{len(plan):,}",
        "c15_num_trained": f"{len(done):,}",
        "c15_planned_flops": power_of_ten(plan["train_flops"].sum()),
        "c15_trained_share": percent(done["train_flops"].sum() / plan["train_flops"].sum()),
        "c15_planned_hours": significant(plan["seconds"].sum() / _HOUR, 2),
        "c15_ladder": " to ".join(count(n, 2) for n in (plan["num_params"].min(), plan["num_params"].max())),
        "c15_left": left_verdict(left),
        "c15_parts": listed(dict.fromkeys(EXPERIMENTS.get(name, name) for name in plan["experiment"])),
    }


def left_verdict(left: pd.DataFrame) -> str:
    """A verdict: what of the plan is still to be trained."""
    if left.empty:
        return "Every planned run is trained"
    hours = significant(left["seconds"].sum() / _HOUR, 2)
    verb = "is" if len(left) == 1 else "are"
    return (
        f"{plural(len(left), 'planned run')} {verb} not trained yet: {power_of_ten(left['train_flops'].sum())} FLOP, "
        f"predicted to take {hours} h of one GPU"
    )


# ---- times ---------------------------------------------------------------------------------------


def log_facts(study: OwnStudy) -> dict[str, object]:
    """Values of the logs: the time that processes took, the utilization, and how many runs diverged."""
    need(study.logs is not None, "no training logs are given (logs_file)")
    assert study.logs is not None
    logs = study.logs
    seconds = float((logs["step_time_s"] * logs["train_steps"]).sum())
    diverged = int((logs["status"] != "finished").sum()) if "status" in logs else 0
    known = pd.to_numeric(logs.get("utilization", pd.Series(dtype=float)), errors="coerce").dropna()
    return {
        "c15_process_hours": significant(seconds / _HOUR, 2),
        "c15_shared_utilization": span_text(known, percent) if len(known) else "unknown",
        "c15_diverged": diverged_verdict(diverged, len(logs)),
    }


def diverged_verdict(diverged: int, total: int) -> str:
    """A verdict: whether runs diverged."""
    if not diverged:
        return f"None of the {plural(total, 'run')} diverged"
    return f"{plural(diverged, 'run')} of {total:,} diverged; they are in the logs, not in the run table"


def recorded_steps(study: OwnStudy) -> pd.DataFrame:
    """The recorded steps; leaves out the section where there are none."""
    need(study.steps is not None and len(study.steps), "no steps that had the GPU to themselves are recorded")
    assert study.steps is not None
    return study.steps


def show_steps(study: OwnStudy) -> Html:
    """Times of steps that had the GPU to themselves: the fastest launch of each model, beside the prediction."""
    steps = recorded_steps(study)
    best = steps.loc[steps.groupby(["architecture", "size"])["seconds_per_step"].idxmin()]
    best = best.sort_values(["num_params", "architecture"])
    first = steps.groupby(["architecture", "size"])["seconds_first"].max()  # a later launch finds compiled code
    memory = zip(best["peak_memory_bytes"], best["predicted_memory_bytes"], strict=True)
    table = pd.DataFrame(
        {
            "architecture": best["architecture"].map(label_of),
            "size": best["size"],
            "launch": best["launch"],
            "milliseconds": (1e3 * best["seconds_per_step"]).map(significant),
            "predicted": (1e3 * predicted_seconds(best)).map(_milliseconds),
            "utilization": best["utilization"].map(_percent),
            "memory": [f"{_gib(measured)}, {_gib(predicted)}" for measured, predicted in memory],
            "first": [significant(first[key], 2) for key in zip(best["architecture"], best["size"], strict=True)],
        }
    )
    return show_table(
        table,
        name="study-steps",
        caption=f"A training step of {steps['tokens_per_step'].iloc[0]:,} tokens at T = "
        f"{steps['context_length'].iloc[0]:,} with a vocabulary of {steps['vocab_size'].iloc[0]:,} tokens, alone on "
        "the GPU, with the fastest launch of each model. FLOP/s reached are a share of the peak that the vendor "
        "states. Memory: measured at most, then predicted. The first step compiles the model.",
        labels={
            "milliseconds": "step (ms)",
            "predicted": "predicted (ms)",
            "utilization": "FLOP/s reached",
            "memory": "memory, predicted (GiB)",
            "first": "first step (s)",
        },
    )


def step_facts(study: OwnStudy) -> dict[str, object]:
    """Values of the recorded steps: shares of the peak of the smallest and the largest model."""
    steps = recorded_steps(study)
    by_size = steps.groupby("num_params")["utilization"].max().sort_index()
    computing = (steps["computing"] / predicted_seconds(steps)).groupby(steps["num_params"]).max().sort_index()
    return {
        "c15_smallest": f"{count(float(by_size.index[0]), 2)} parameters",
        "c15_smallest_utilization": _percent(by_size.iloc[0]),
        "c15_largest": f"{count(float(by_size.index[-1]), 2)} parameters",
        "c15_largest_utilization": _percent(by_size.iloc[-1]),
        "c15_smallest_computing": _percent(computing.iloc[0]),
        "c15_largest_computing": _percent(computing.iloc[-1]),
    }


def predicted_seconds(steps: pd.DataFrame) -> pd.Series:
    """Of a step in a CUDA graph, from its parts."""
    return steps["computing"] + steps["moving"] + steps["latency"]


def _milliseconds(value: float) -> str:
    return "–" if pd.isna(value) else significant(value)


def _percent(share: float | None) -> str:
    return "–" if pd.isna(share) else percent(float(share))


def _gib(value: float | None) -> str:
    return "–" if pd.isna(value) else significant(float(value) / _GIB, 2)
