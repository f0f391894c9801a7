"""Which configuration of a kernel runs: lists cut to the shape, the first that fits, forced ones, errors."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

from triton.runtime.errors import OutOfResources

from companion.errors import InputError
from companion.kernels.common.device import Config
from companion.kernels.mlstm import configs
from companion.kernels.mlstm.configs import candidates, forced

SHAPE: dict[str, Any] = {"d_qk": 128, "d_hv": 256, "chunk_size": 64, "dtype": torch.bfloat16}
CPU = torch.device("cpu")
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "_works", {})


def too_much(config: Config) -> Config:
    raise OutOfResources(300_000, 232_448, "shared memory")


def whole(config: Config) -> Config:
    return config


@given(
    kernel=st.sampled_from(configs.KERNELS),
    d_qk=st.integers(16, 512),
    d_hv=st.integers(16, 512),
    chunk_size=st.sampled_from([16, 32, 64, 128, 256]),
    dtype=st.sampled_from(DTYPES),
)
def test_candidates_fit_the_shape(kernel: str, d_qk: int, d_hv: int, chunk_size: int, dtype: torch.dtype) -> None:
    """Blocks are powers of two, at least 16 (tl.dot), of no more than the next power of two of what they cover.

    The one exception: blocks of heads are at least 64 wide in bfloat16.
    """
    found = candidates(kernel, d_qk=d_qk, d_hv=d_hv, chunk_size=chunk_size, dtype=dtype)
    carries = kernel == "states_and_outputs"  # only states in bfloat16 that fit the registers
    fits = dtype == torch.bfloat16 and d_qk <= 256 and chunk_size >= 32 and d_qk % 8 == d_hv % 8 == 0
    assert bool(found) == (fits or not carries)
    assert len(set(found)) == len(found)
    wide = 64 if dtype == torch.bfloat16 else 16
    for config in found:
        assert config.num_warps in (1, 2, 4, 8, 16)
        assert config.num_stages >= 1
        for name, size in config.blocks:
            assert size & (size - 1) == 0
            assert size >= 16
            if name in ("BLOCK_M", "BLOCK_S", "BLOCK_T", "VALUE_M"):
                assert chunk_size % size == 0
            elif size > wide:
                assert size < 2 * (d_hv if name.endswith("_V") else d_qk)
            if name == "BLOCK_Q" or (name == "BLOCK_K" and carries):  # no loop over d_qk
                assert size >= d_qk


def test_a_shape_always_has_the_same_list() -> None:
    for kernel in configs.KERNELS:
        assert candidates(kernel, **SHAPE) == candidates(kernel, **SHAPE)


def test_a_configuration_reads_as_text_and_as_constants() -> None:
    config = Config((("BLOCK_M", 64), ("BLOCK_V", 32)), 4, 2)
    assert str(config) == "BLOCK_M 64, BLOCK_V 32, 4 warps, 2 stages"
    assert config["BLOCK_V"] == 32
    assert config.constants == {"BLOCK_M": 64, "BLOCK_V": 32, "num_warps": 4, "num_stages": 2}
    few = replace(config, registers=168)
    assert few.constants == config.constants | {"maxnreg": 168}
    assert str(few) == f"{config}, 168 registers"


def test_unknown_kernels() -> None:
    with pytest.raises(InputError, match=r"^kernel 'mystery': there are states, .*, step$"):
        candidates("mystery", **SHAPE)
    with (
        pytest.raises(InputError, match=r"^kernel other, outputz: there are states, .*, step$"),
        forced(other=0, outputz=1),
    ):
        pass


def run(kernel: str = "outputs", attempt: Any = whole, device: torch.device = CPU, **shape: Any) -> Config:
    return configs.run(kernel, attempt, device=device, **{**SHAPE, **shape})


def test_the_first_candidate_runs() -> None:
    for kernel in configs.KERNELS:
        assert run(kernel) == candidates(kernel, **SHAPE)[0]


def test_what_does_not_fit_is_passed_over_and_not_tried_again() -> None:
    first, second, *_ = candidates("outputs", **SHAPE)
    tried = []

    def attempt(config: Config) -> Config:
        tried.append(config)
        return too_much(config) if config == first else config

    assert run(attempt=attempt) == run(attempt=attempt) == second
    assert tried == [first, second, second]
    # of this shape, dtype and device only
    for other in ({"d_hv": 255}, {"chunk_size": 128}, {"device": torch.device("meta")}):
        assert (
            run(**other) == candidates("outputs", **{**SHAPE, **{k: v for k, v in other.items() if k != "device"}})[0]
        )


def test_what_worked_may_not_fit_again() -> None:
    """Compiled anew, for pointers that are not aligned, the same configuration may need more."""
    first, second, *_ = candidates("outputs", **SHAPE)
    assert run() == first
    assert run(attempt=lambda config: too_much(config) if config == first else config) == second
    assert run() == second


def test_the_choice_is_remembered_for_a_number_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few sequences: the candidate with the most programs; many: the first. Asked once for each."""
    asked: list[int] = []
    monkeypatch.setattr(configs, "multiprocessors", lambda device: 100)
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))

    def choose(sequences: int) -> Config:
        def programs(config: Config) -> int:
            asked.append(sequences)
            return sequences * 512 // config["BLOCK_V"]

        return configs.run("outputs", whole, device=cuda, programs=programs, size=sequences, **SHAPE)

    choices = candidates("outputs", **SHAPE)
    assert choose(1000) == choices[0]
    assert choose(1) == max(choices, key=lambda config: 512 // config["BLOCK_V"])
    before = len(asked)
    assert choose(1000) == choices[0]
    assert len(asked) == before


def test_candidates_of_wide_heads_are_not_all_for_narrow_ones() -> None:
    size = {"chunk_size": 128, "dtype": torch.bfloat16}
    wide, narrow = (candidates("states", d_qk=d_qk, d_hv=256, **size) for d_qk in (256, 128))
    assert wide[0].num_warps == 8
    assert all(config.num_warps < 8 for config in narrow)
    wide, narrow = (candidates("query_gradients", d_qk=128, d_hv=d_hv, **size) for d_hv in (256, 128))
    assert wide[0]["BLOCK_V"] == 128
    assert all(config["BLOCK_V"] == 64 for config in narrow)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", [kernel for kernel in configs.KERNELS if kernel != "states_and_outputs"])
def test_every_width_has_a_candidate(kernel: str, dtype: torch.dtype) -> None:
    for d_qk in (16, 64, 65, 128, 129, 512):
        for d_hv in (16, 64, 65, 128, 129, 512):
            assert candidates(kernel, d_qk=d_qk, d_hv=d_hv, chunk_size=64, dtype=dtype), (d_qk, d_hv)


def test_candidates_of_narrow_heads() -> None:
    """The first ones are those measured: blocks, warps and stages."""
    firsts = {
        (size, d_hv): {kernel: candidates(kernel, d_qk=size, d_hv=d_hv, chunk_size=length, dtype=torch.bfloat16)[0]
                       for kernel in configs.KERNELS if kernel != "step"}
        for size, d_hv, length in ((64, 128, 64), (128, 128, 128))
    }  # fmt: skip
    for found in firsts.values():
        assert (found["pair_gradients"].num_warps, found["pair_gradients"].num_stages) == (4, 3)
        assert found["states"]["BLOCK_V"] == 128
    narrow, square = firsts.values()
    assert (narrow["state_gradients"]["BLOCK_V"], square["state_gradients"]["BLOCK_V"]) == (128, 64)
    assert (narrow["pair_gradients"].registers, square["pair_gradients"].registers) == (168, None)
    assert (narrow["query_gradients"].registers, square["query_gradients"].registers) == (168, None)
    assert (narrow["query_gradients"].num_stages, square["query_gradients"].num_stages) == (3, 2)
    assert (narrow["key_value_gradients"]["VALUE_V"], square["key_value_gradients"]["VALUE_V"]) == (64, 128)
    size = {"d_qk": 256, "d_hv": 512, "dtype": torch.bfloat16}
    assert [candidates("pair_gradients", chunk_size=length, **size)[0].num_warps for length in (64, 128)] == [4, 8]


def test_nothing_fits() -> None:
    with pytest.raises(InputError) as raised:
        run(attempt=too_much)
    message = str(raised.value)
    assert message.startswith(
        "outputs: d_qk 128, d_hv 256, chunk_size 64 in torch.bfloat16 needs more than this GPU has"
    )
    assert "Required: 300000" in message
    assert message.endswith("a smaller chunk_size needs less, backend='torch' none of it")
    assert "\n" not in message


def test_other_errors_pass() -> None:
    def attempt(config: Config) -> Config:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(attempt=attempt)


def test_forced_runs_one_and_no_other() -> None:
    usual, other, *_ = candidates("outputs", **SHAPE)
    with forced(outputs=1, states=0):
        assert run() == other
        with forced(outputs=0):
            assert run() == usual
            assert run("states") == candidates("states", **SHAPE)[0]
        assert run() == other
        with pytest.raises(InputError, match=r"^outputs: .* needs more than this GPU has"):
            run(attempt=too_much)
    assert run() == usual  # neither remembered nor ruled out


@pytest.mark.parametrize("number", [-1, 99])
def test_forced_numbers_that_do_not_exist(number: int) -> None:
    count = len(candidates("outputs", **SHAPE))
    with (
        forced(outputs=number),
        pytest.raises(InputError, match=rf"^outputs: no configuration {number}, there are {count}$"),
    ):
        run()


def test_forced_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), forced(outputs=1):
        raise ZeroDivisionError
    assert run() == candidates("outputs", **SHAPE)[0]


def test_forced_reaches_other_threads() -> None:
    """autograd runs the backward pass of CUDA tensors in a thread of its own."""
    from concurrent.futures import ThreadPoolExecutor

    with forced(outputs=1), ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == candidates("outputs", **SHAPE)[1]
