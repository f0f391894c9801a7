"""What the explorer's page says: numbers of its settings, verdicts on laws, one architecture or two."""

import pandas as pd
import pytest

from companion.chapters import ch91
from companion.explorer import Explorer, Setting
from companion.formatting import count, significant
from companion.plotting.explorer_page import duration


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of(num_resamples=5)


@pytest.fixture(scope="module")
def alone() -> Explorer:
    return Explorer.of(architectures=["xlstm"], num_resamples=5, default=Setting(tokens_per_param=None))


def test_facts_are_those_of_the_opening_setting(explorer: Explorer) -> None:
    facts = ch91.explorer_facts(explorer, 5)
    shown = explorer.evaluate()
    for name, label in (("transformer", "Transformer"), ("xlstm", "xLSTM")):
        numbers = shown[name]["numbers"]
        assert f"{label} {count(numbers['num_params'])} parameters, {numbers['loss']:.3f}" in facts["c91_loss"]
        assert f"{label} {duration(numbers['ttft_s'])} and {duration(numbers['step_time_s'])}" in facts["c91_times"]
        assert f"{label} from {count(numbers['num_params'])} parameters" in facts["c91_long_context"]
    assert facts["c91_law_context"] == "T = 8,192"
    assert facts["c91_ratio"] == "M = 22"
    assert facts["c91_setting"].endswith("a batch of 8 on NVIDIA H100 SXM")
    assert facts["c91_resamples"] == "5"


def test_one_architecture(alone: Explorer) -> None:
    facts = ch91.explorer_facts(alone, 5)
    assert facts["c91_ratio"] == "the compute-optimal M"
    assert "Transformer" not in facts["c91_memory"]
    compared = ch91.compare_designs({"all runs": alone}, (1e20, 1e21))
    assert ch91.designs_verdict(compared).startswith("With one architecture")
    assert "0.000 nats per token" in ch91.designs_verdict(compared)
    ratios = ch91.step_ratios_text({2048.0: alone.evaluate()})
    assert ratios.endswith(duration(alone.evaluate()["xlstm"]["numbers"]["step_time_s"]))


def test_laws_agree_or_not(explorer: Explorer) -> None:
    compared = ch91.compare_designs({"all runs": explorer}, (1e21,))
    best = explorer.evaluate(Setting(train_flops=1e21, tokens_per_param=None))
    losses = {name: one["numbers"]["loss"] for name, one in best.items()}
    assert compared["loss"].tolist() == list(losses.values())
    lower = {"transformer": "Transformer", "xlstm": "xLSTM"}[min(losses, key=lambda name: losses[name])]
    assert f"{lower} has the lower loss under every law" in ch91.designs_verdict(compared)
    other = compared.assign(design="other", loss=compared["loss"].to_numpy()[::-1])
    both = pd.concat([compared, other])
    assert "the laws disagree who is lower" in ch91.designs_verdict(both)
    gap = abs(losses["transformer"] - losses["xlstm"])
    assert f"by up to {gap:.3f} nats per token" in ch91.designs_table(both).markup


def test_links_say_what_to_see(explorer: Explorer) -> None:
    setting = Setting(context_length=131072, batch_size=1)
    markup = ch91.links(explorer, {"long": setting}).markup
    step = duration(explorer.evaluate(setting)["xlstm"]["numbers"]["step_time_s"])
    assert "A long context" in markup
    assert f"xLSTM {step} a step." in markup


def test_solutions(explorer: Explorer) -> None:
    shown = explorer.evaluate()
    times = [one["numbers"]["step_time_s"] for one in shown.values()]
    assert ch91.step_ratios_text({2048.0: shown}) == f"T =     2,048: ratio {significant(times[0] / times[-1])}"
    never = {name: {**one, "fits": False} for name, one in shown.items()}
    assert ch91.largest_batches_text({1: shown, 8: shown, 16: never}).splitlines() == ["Transformer: 8", "xLSTM: 8"]
    assert "none fits" in ch91.largest_batches_text({1: never})
    assert "loss +0.000 nats per token" in ch91.overtraining_text(shown, shown)
    assert 8 in ch91.steps_of("batch_size")
