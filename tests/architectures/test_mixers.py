"""Mixers and layers: what an incomplete one raises, hybrids as sums of their layers, windows, no feed-forward."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import CONVENTIONS, PAPER, count_flops, count_params, num_params
from companion.accounting.context import context_of_core_share, context_of_equal_cores, context_of_equal_cost
from companion.accounting.inference import activations_per_token, cache_bytes, cache_numbers, count_prefill, count_step
from companion.architectures import ARCHITECTURES, XLSTM, Architecture, Attention, Mixer, Transformer, preset
from companion.architectures.gated_deltanet import GatedDelta, GatedDeltaNet
from companion.errors import InputError
from companion.inference.features import features, terms_of
from companion.runs.shape_family import paper_family

SMALL = {"d_model": 256, "n_layers": 8, "n_heads": 4}
#: Methods by the question that needs them.
NEEDS = {
    "num_params": "projection_params",
    "norms": "norm_params",
    "flops": "core_flops",
    "least": "least_context",
    "prefill": "prefill_cache_traffic",
    "step": "step_core_flops",
    "cache": "cache_numbers",
    "activations": "activations_per_token",
    "context": "growth",
    "runtime": "step_features",
}
ASK: dict[str, Any] = {
    "num_params": num_params,
    "norms": count_params,
    "flops": lambda model: count_flops(model, 256),
    "least": lambda model: count_flops(model, 256),
    "prefill": lambda model: count_prefill(model, 256),
    "step": lambda model: count_step(model, 256),
    "cache": lambda model: cache_numbers(model, 256),
    "activations": activations_per_token,
    "context": context_of_core_share,
    "runtime": lambda model: features("step_time", model, 256, 1),
}


def without(method: str) -> type[Architecture]:
    """A new architecture whose mixer is complete but for one method."""
    missing = {method: getattr(Mixer, method)}
    incomplete = type("Incomplete", (GatedDelta,), {"name": "incomplete", **missing})

    class Mamba2(GatedDeltaNet):
        name = "mamba2"
        mixer_class = incomplete

        def mixer(self) -> Mixer:
            return incomplete(n_heads=self.n_heads, d_qk=self.d_qk, d_hv=self.d_hv)

    return Mamba2


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda of: monkeypatch.setitem(ARCHITECTURES, of.name, of)


@pytest.mark.parametrize("question", NEEDS)
def test_a_mixer_without_a_method_is_named_and_never_counted_as_another(question: str, register: Any) -> None:
    method = NEEDS[question]
    of = without(method)
    register(of)
    model = preset("mamba2", "160m")
    with pytest.raises(InputError, match=rf"mixer incomplete has no {method}: write this method of Incomplete"):
        ASK[question](model)
    if method not in ("projection_params", "norm_params"):  # what does not ask for the method is counted
        assert num_params(model) == num_params(preset("gated_deltanet", "160m"))


def test_a_mixer_without_terms_has_no_runtime_model(register: Any) -> None:
    register(without("growth"))
    with pytest.raises(InputError, match=r"runtime model of mamba2, ttft: no terms are known; .* transformer, xlstm$"):
        terms_of("mamba2", "ttft")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("method", [name for name in vars(Mixer) if not name.startswith("_") and name != "name"])
def test_mixers_are_complete(name: str, method: str) -> None:
    for mixer, _ in ARCHITECTURES[name](**SMALL).layers:
        if callable(getattr(Mixer, method)):
            assert getattr(type(mixer), method) is not getattr(Mixer, method)


def hybrids() -> st.SearchStrategy[Architecture]:
    """Hybrids of both recurrent mixers, with their attention grouped and in windows."""
    heads = st.sampled_from([2, 4])
    return st.builds(
        lambda of, d, n, h, every, attention, shared, window, d_ff: of(
            d_model=64 * d, n_layers=n, n_heads=h, attention_every=every, attention_heads=2 * attention,
            n_kv_heads=attention if shared else None, window=window, d_ff=d_ff, vocab_size=1000,
        ),
        st.sampled_from([XLSTM, GatedDeltaNet]), st.integers(1, 8), st.integers(1, 40), heads, st.integers(2, 9),
        st.sampled_from([1, 2]), st.booleans(), st.none() | st.integers(1, 5000), st.none() | st.integers(0, 500),
    )  # fmt: skip


@given(hybrids(), st.integers(64, 5000), st.sampled_from(sorted(CONVENTIONS)))
def test_a_hybrid_costs_the_sum_of_its_layers(model: Architecture, T: int, convention: str) -> None:
    """One architecture of each kind of layer, as deep as there are layers of it, without embedding and last norm."""
    of = ARCHITECTURES[model.name]
    shared = {name: value for name, value in model.shapes().items() if name in ("d_model", "d_ff", "vocab_size")}
    attention = model.n_layers // model.attention_every
    own = {"n_heads": model.n_heads, "d_qk": model.d_qk, "d_hv": model.d_hv}
    parts = []
    if model.n_layers > attention:
        parts.append(of(n_layers=model.n_layers - attention, **shared, **own))
    if attention:
        parts.append(
            Transformer(
                n_layers=attention, n_heads=model.attention_heads, n_kv_heads=model.n_kv_heads, window=model.window,
                **shared,
            )
        )  # fmt: skip
    assert sum(number for _, number in model.layers) == model.n_layers
    for part in ("mixer_projections", "mixer_core", "output_gate", "ffn"):
        total = sum(getattr(count_params(each), part) for each in parts)
        assert getattr(count_params(model), part) == total
        flops = [getattr(count_flops(each, T, convention).forward, part) for each in (model, *parts)]
        assert flops[0] == pytest.approx(sum(flops[1:]), rel=1e-13)
    assert cache_bytes(model, T) == sum(cache_bytes(each, T) for each in parts)
    for count in (count_prefill, count_step):
        moved = [count(each, T).traffic.cache for each in (model, *parts)]
        assert moved[0] == pytest.approx(sum(moved[1:]), rel=1e-13)
    last = 4 * model.d_model
    assert activations_per_token(model) - last == sum(activations_per_token(each) - last for each in parts)


@given(architectures("transformer"), st.integers(1, 5000), st.integers(0, 5000))
def test_a_window_of_the_context_or_more_is_full_attention(model: Transformer, T: int, more: int) -> None:
    wide = replace(model, window=T + more)
    for convention in CONVENTIONS:
        assert count_flops(wide, T, convention).components == count_flops(model, T, convention).components
    for count in (count_prefill, count_step):
        assert count(wide, T).flops == count(model, T).flops
        assert count(wide, T).traffic == count(model, T).traffic
        assert count(wide, T).memory == count(model, T).memory
    assert num_params(wide) == num_params(model)


def test_a_window_by_hand() -> None:
    """A band of w·(2·T − w) scores, of which the causal half counts; a cache of w tokens."""
    model = Transformer(**SMALL, window=100)
    T, w = 1000, 100
    per_score = 2 * 64 + 2 * 64 + 5
    assert count_flops(model, T).forward.mixer_core == 8 * 4 * per_score * w * (2 * T - w) / 2
    assert count_step(model, T).flops.mixer_core == 8 * 4 * per_score * w
    assert cache_numbers(model, T) == 8 * 4 * 128 * w
    assert count_step(model, T).traffic.cache == 2 * 8 * 4 * 128 * (w + 1)
    assert count_step(model, 50).traffic.cache == 2 * 8 * 4 * 128 * 51


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_window_is_exact_for_whole_pairs(T: int, w: int) -> None:
    """What brute force over queries and keys counts, less half of w: the diagonal counts half, as in T²/2."""
    query, key = np.arange(T)[:, None], np.arange(T)[None]
    pairs = ((key <= query) & (query - key < w)).sum()
    counted = count_flops(Transformer(d_model=4, n_layers=1, n_heads=1, window=w), T).forward.mixer_core
    assert counted / (8 + 8 + 5) == pairs - min(w, T) / 2


def test_windows_beside_full_layers() -> None:
    local = Transformer(**SMALL, window=128, attention_every=4)
    assert [(layer.mixer.window, layer.number) for layer in local.layers] == [(128, 6), (None, 2)]  # type: ignore[attr-defined]
    full, window = Transformer(**SMALL), Transformer(**SMALL, window=128)
    assert cache_numbers(local, 4096) == (2 * cache_numbers(full, 4096) + 6 * cache_numbers(window, 4096)) / 8


@pytest.mark.parametrize("d_ff", [0, 64])
def test_blocks_without_feed_forward(d_ff: int) -> None:
    model = Transformer(d_model=64, n_layers=3, n_heads=2, d_ff=d_ff, vocab_size=100)
    counted = count_params(model)
    assert counted.ffn == 3 * 3 * 64 * d_ff
    assert counted.norms == (3 * (2 if d_ff else 1) + 1) * 64
    assert count_flops(model, 10).forward.ffn == 3 * 10 * 8 * 0 + 3 * 10 * (6 * 64 * d_ff + 2 * d_ff)
    assert activations_per_token(model) == 3 * (7 * (2 if d_ff else 1) * 64 + 6 * d_ff + 2 * 192 + 2 * 64) + 4 * 64


def test_arrays_of_hybrids_and_windows() -> None:
    every, window = np.array([0, 2, 4]), np.array([0, 50, 100_000])
    many = XLSTM(**SMALL, attention_every=every, window=window)
    singles = [XLSTM(**SMALL)]
    singles += [
        XLSTM(**SMALL, attention_every=int(k), window=int(w)) for k, w in zip(every[1:], window[1:], strict=True)
    ]
    assert num_params(many).tolist() == [num_params(one) for one in singles]
    assert count_flops(many, 1000).train_flops_per_token.tolist() == [
        count_flops(one, 1000).train_flops_per_token for one in singles
    ]
    assert cache_bytes(many, 1000).tolist() == [cache_bytes(one, 1000) for one in singles]


@pytest.mark.parametrize(
    ("of", "shapes", "words"),
    [
        (XLSTM, {"n_kv_heads": 2}, "n_kv_heads: this xlstm has no attention; leave empty, or set attention_every"),
        (XLSTM, {"window": 10, "qk_norm": True}, "qk_norm, window: this xlstm has no attention"),
        (XLSTM, {"attention_every": 1}, "attention_every: 1 leaves no other layer"),
        (XLSTM, {"attention_every": 2.5}, "attention_every: 2.5 is not a whole number of at least 0"),
        (
            XLSTM,
            {"attention_every": 4, "attention_heads": 3},
            "d_model 256 is not divisible by the 3 heads of attention",
        ),
        (XLSTM, {"attention_every": 4, "n_kv_heads": 3}, "n_kv_heads 3 does not divide attention_heads 2"),
        (Transformer, {"attention_every": 4}, "without a window all layers of a transformer are alike"),
        (Transformer, {"attention_heads": 4}, "all layers of a transformer have n_heads heads"),
        (Transformer, {"window": -1}, "window: -1 is not a whole number of at least 0"),
        (Transformer, {"d_ff": -1}, "d_ff: -1 is not a whole number of at least 0"),
    ],
)
def test_wrong_layers_are_named(of: type[Architecture], shapes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        of(**SMALL, **shapes)


def test_what_says_nothing_is_forgotten() -> None:
    assert XLSTM(**SMALL, n_kv_heads=4, qk_norm=False, window=0, attention_every=0) == XLSTM(**SMALL)
    assert Transformer(**SMALL, window=0).shapes() == Transformer(**SMALL).shapes()


def test_crossings_of_hybrids_and_windows() -> None:
    """A crossing is where the counts are equal, whatever the layers are."""
    hybrid, full = preset("xlstm", "1.4b", attention_every=4), preset("transformer", "1.4b")
    T = context_of_equal_cores(full, hybrid)
    cores = [count_flops(model, round(T / 64) * 64).components.mixer_core for model in (full, hybrid)]
    assert cores[0] == pytest.approx(cores[1], rel=32 / T)
    T = context_of_equal_cost(full, hybrid)
    costs = [count_flops(model, max(64, round(T / 64) * 64)).train_flops_per_token for model in (full, hybrid)]
    assert T == 0 or costs[0] == pytest.approx(costs[1], rel=0.01)
    T = context_of_core_share(hybrid, 0.5)
    assert count_flops(hybrid, round(T / 64) * 64).share("mixer_core") == pytest.approx(0.5, abs=0.01)
    local = preset("transformer", "1.4b", window=4096)
    T = context_of_core_share(local, 0.2)
    assert T > 4096
    assert count_flops(local, round(T)).share("mixer_core") == pytest.approx(0.2, abs=1e-4)
    assert np.isnan(context_of_core_share(local, 0.9))
    assert context_of_core_share(preset("transformer", "1.4b", window=10**9), 0.3) == pytest.approx(
        context_of_core_share(preset("transformer", "1.4b"), 0.3), rel=1e-9
    )


def test_members_of_a_family_may_share_heads() -> None:
    family = paper_family("gated_deltanet_3to1")
    own, shared = family.shapes(2048.0), family.shapes(2048.0, 8)
    assert isinstance(own.layers[1].mixer, Attention)
    assert own.layers[1].mixer.n_kv_heads == 16
    assert shared.layers[1].mixer.n_kv_heads == 2  # type: ignore[attr-defined]
    assert count_flops(preset("xlstm", "160m"), 64, PAPER).architecture.name == "xlstm"
