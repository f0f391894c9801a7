"""What the step times say about the authors' device and kernel."""

import pandas as pd

from companion.benchmarks.hardware import measured_on
from companion.chapters import ch08
from companion.chapters.ch08 import kernel
from companion.hardware import get_hardware
from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import (
    cache_term_variants,
    cached_token_times,
    multiprocessor_bounds,
    multiprocessor_scan,
)
from companion.paths import data_dir

PEAKS = get_hardware("h100-sxm")


def test_device_of_the_authors(timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
    bounds = multiprocessor_bounds(cached_token_times(timings))
    scan = multiprocessor_scan(timings, [120, 132, 144], PEAKS)
    facts = kernel.device_facts_of_timings(timings, models["xlstm", "step_time"], bounds, scan, PEAKS)
    assert PEAKS.label in facts["c8_devices_left"]
    assert "A100" in facts["c8_devices_excluded"]
    assert bounds[0] <= PEAKS.num_multiprocessors < bounds[1]
    inside = scan.loc[scan["num_multiprocessors"] >= bounds[0], "rms_log_error"]
    assert facts["c8_scan"].startswith(f"{inside.min():.3f}")
    rates = models["xlstm", "step_time"].table().set_index("term")["rate"]
    assert facts["c8_rate_weights"].startswith(f"{rates['weight_bytes'] / 1e12:.2f} [")


def test_waves_and_bytes(models: dict[tuple[str, str], RuntimeModel]) -> None:
    variants = cache_term_variants(models["transformer", "step_time"])
    facts = ch08.kernel_facts(pd.DataFrame({"beta_eff_bytes_per_s": [0.5e12, 1.5e12]}), variants)
    assert facts["c8_step_bandwidths"] == "0.50 to 1.50"
    assert facts["c8_misfit_bytes"] == f"{variants['rms_log_error'].iloc[1]:.2f}"
    assert float(facts["c8_misfit_waves"]) < float(facts["c8_misfit_bytes"])


def test_kernels_at_hand() -> None:
    reads = measured_on(data_dir() / "benchmarks" / "hardware.jsonl")
    facts = ch08.own_facts(reads)
    assert all(gpu.removeprefix("NVIDIA ").split(" ")[0] in facts["c8_own_gpus"] for gpu in set(reads["gpu"]))
    assert len(facts["c8_own_copies"].split(" and ")) == reads["gpu"].nunique()
