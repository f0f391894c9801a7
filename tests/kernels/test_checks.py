"""Bad input of `mlstm` and `mlstm_step`: one line that names what is at fault, and what to use instead."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mlstm_inputs import Inputs, mlstm_inputs, mlstm_state
from torch._subclasses.fake_tensor import FakeTensorMode

from companion.errors import InputError
from companion.kernels import MLSTMState, mlstm, mlstm_step
from companion.kernels.mlstm import checks

FLOAT32 = {"dtype": torch.float32}


def changed(**tensors: Any) -> list[Any]:
    """Good inputs, (2, 5, 2, 16) and (2, 5, 2, 24) in float32, some replaced by a value or by a function of them."""
    inputs = dict(zip("qkvif", mlstm_inputs(5, **FLOAT32), strict=True))
    for name, value in tensors.items():
        inputs[name] = value(inputs[name]) if callable(value) else value
    return list(inputs.values())


SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"q": [1.0]}, r"^q: list is not a torch tensor$"),
    ({"q": lambda x: x[0]}, r"^q: 3 axes, shape \(5, 2, 16\); expected \(B, T, H, d_qk\)$"),
    ({"v": lambda x: x[..., 0]}, r"^v: 3 axes.*expected \(B, T, H, d_hv\)$"),
    ({"i": lambda x: x[..., None]}, r"^i: 4 axes, shape \(2, 5, 2, 1\); expected \(B, T, H\)$"),
    ({"k": lambda x: x[:, :, :1]}, r"^k: H = 1 but q has H = 2; .*layout 'bthd'; the other is 'bhtd'"),
    ({"v": lambda x: x[:1]}, r"^v: B = 1 but q has B = 2"),
    ({"f": lambda x: x[:, :4]}, r"^f: T = 4 but q has T = 5"),
    ({"i": lambda x: x.transpose(1, 2)}, r"^i: T = 2 but q has T = 5"),
    ({"k": lambda x: x[..., :8]}, r"^k: d_qk = 8 but q has d_qk = 16; queries and keys share their size$"),
    ({"v": lambda x: x[..., :0]}, r"^v: d_hv = 0, .*at least one"),
    ({"k": lambda x: x.half()}, r"^k: float16 but q is float32; cast q, k and v to one dtype$"),
    ({"v": lambda x: x.double()}, r"^v: float64 but q is float32"),
    ({name: lambda x: x.int() for name in "qkv"}, r"^q: int32 is not supported; use one of bfloat16, float16, float32"),
    ({"f": lambda x: x.long()}, r"^f: int64 is not supported; use one of"),
    ({"k": lambda x: x.to("meta")}, r"^k: on meta but q is on cpu; move all inputs to one device$"),
]


@pytest.mark.parametrize(("change", "message"), SHAPES, ids=[message[:30] for _, message in SHAPES])
def test_shapes_dtypes_devices(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mlstm(*changed(**change))


@pytest.mark.parametrize("axis", range(3))
def test_nothing_to_do(axis: int) -> None:
    empty = [x.narrow(axis, 0, 0) for x in mlstm_inputs(5, **FLOAT32)]
    with pytest.raises(InputError, match=rf"^q: {'BTH'[axis]} = 0, .*every axis needs at least one element$"):
        mlstm(*empty)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "cuda"}, r"^backend: 'cuda' is unknown; use one of auto, triton, torch, torch-parallel, torch-re"),
        ({"layout": "thbd"}, r"^layout: 'thbd' is unknown; use one of bthd, bhtd$"),
        ({"layout": "step"}, r"^layout: 'step' is unknown"),
        ({"gate": "tanh"}, r"^gate: 'tanh' is unknown; use one of exponential, sigmoid$"),
        ({"chunk_size": 0}, r"^chunk_size: 0 is not a positive whole number$"),
        ({"chunk_size": 16.0}, r"^chunk_size: 16.0 is not a positive whole number$"),
        ({"chunk_size": True}, r"^chunk_size: True is not"),
        (
            {"chunk_size": 48},
            r"^chunk_size: 48 is not one of 16, 32, 64, 128, 256; use one of them, or backend='torch'",
        ),
        ({"chunk_size": 512, "backend": "triton"}, r"^chunk_size: 512 is not one of"),
        ({"chunk_size": 16, "backend": "torch-parallel"}, r"^chunk_size: backend 'torch-parallel' has no chunks"),
        ({"chunk_size": 16, "backend": "torch-recurrent"}, r"^chunk_size: backend 'torch-recurrent' has no chunks"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mlstm(*changed(), **options)


STATES: list[tuple[Callable[[MLSTMState], Any], str]] = [
    (lambda s: s.C, r": Tensor is not an MLSTMState\(C, n, m\); see MLSTMState.empty$"),
    (lambda s: (s.C, s.n), r": tuple is not an MLSTMState"),
    (lambda s: s._replace(m=0.0), r"\.m: float is not a torch tensor$"),
    (lambda s: s._replace(C=s.C.mT), r"\.C: shape \(2, 2, 24, 16\); expected \(B, H, d_qk, d_hv\) = \(2, 2, 16, 24\)$"),
    (lambda s: s._replace(n=s.n[..., None]), r"\.n: shape \(2, 2, 16, 1\); expected \(B, H, d_qk\) = \(2, 2, 16\)$"),
    (lambda s: s._replace(m=s.m[:1]), r"\.m: shape \(1, 2\); expected \(B, H\) = \(2, 2\)$"),
    (lambda s: s._replace(C=s.C.half()), r"\.C: float16 is not supported; use float32 or bfloat16$"),
    (lambda s: s._replace(n=s.n.bfloat16()), r"\.n: bfloat16 is not supported; use float32$"),
    (lambda s: s._replace(m=s.m.double()), r"\.m: float64 is not supported; use float32$"),
    (lambda s: s._replace(C=s.C.to("meta")), r"\.C: on meta but q is on cpu; move the state to the inputs$"),
]


@pytest.mark.parametrize(("change", "message"), STATES, ids=[message[:30] for _, message in STATES])
def test_states(change: Callable[[MLSTMState], Any], message: str) -> None:
    state = change(mlstm_state(**FLOAT32))
    with pytest.raises(InputError, match="^initial_state" + message):
        mlstm(*changed(), initial_state=state)
    with pytest.raises(InputError, match="^state" + message):
        mlstm_step(*(x[:, 0] for x in changed()), state)


def test_steps() -> None:
    token, state = [x[:, 0] for x in changed()], mlstm_state(**FLOAT32)
    with pytest.raises(InputError, match=r"^q: 4 axes, shape \(2, 5, 2, 16\); expected \(B, H, d_qk\)$"):
        mlstm_step(*changed(), state)
    with pytest.raises(InputError, match=r"^f: H = 1 but q has H = 2; .*just these axes$"):
        mlstm_step(*token[:4], token[4][:, :1], state)
    with pytest.raises(InputError, match=r"^gate: 'none' is unknown"):
        mlstm_step(*token, state, gate="none")
    expanded = state._replace(n=state.n[:1].expand_as(state.n))
    with pytest.raises(InputError, match=r"^state.n: an expanded view cannot be updated in place; pass state.n.clone"):
        mlstm_step(*token, expanded)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([0, 5], r": list is not a torch tensor$"),
        (torch.tensor([0.0, 5.0]), r": float32 is not supported; use int32 or int64$"),
        (torch.tensor([0, 5], dtype=torch.int16), r": int16 is not supported"),
        (torch.tensor([[0, 5]]), r": shape \(1, 2\); expected \(N \+ 1\), the bounds of N >= 1 sequences"),
        (torch.tensor([5]), r": shape \(1,\); expected"),
        (torch.tensor([0, 5], device="meta"), r": on meta but q is on cpu; move it there or to the CPU$"),
        (torch.tensor([1, 5]), r": starts at 1, not at 0$"),
        (torch.tensor([0, 4, 3, 5]), r": falls from 4 to 3 at position 2$"),
        (torch.tensor([0, 4]), r": ends at 4, but q has T = 5 tokens$"),
        (torch.tensor([0, 6]), r": ends at 6, but q has T = 5 tokens$"),
    ],
)
def test_packed(bounds: Any, message: str) -> None:
    with pytest.raises(InputError, match="^cu_seqlens" + message):
        mlstm(*(x[:1] for x in changed()), cu_seqlens=bounds)


def test_packed_batches_and_states() -> None:
    bounds = torch.tensor([0, 2, 5, 5])
    with pytest.raises(InputError, match=r"^cu_seqlens: .* B = 1, but q has B = 2$"):
        mlstm(*changed(), cu_seqlens=bounds)
    with pytest.raises(InputError, match=r"^initial_state.C: .*expected \(N, H, d_qk, d_hv\) = \(3, 2, 16, 24\)$"):
        mlstm(*(x[:1] for x in changed()), cu_seqlens=bounds, initial_state=mlstm_state(**FLOAT32))


def test_triton_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for call in (
        lambda: mlstm(*changed(), backend="triton"),
        lambda: mlstm_step(*(x[:, 0] for x in changed()), mlstm_state(**FLOAT32), backend="triton"),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(InputError, match=r"^backend 'triton': torch sees no CUDA GPU here, .*backend='torch' can"):
            call()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        with pytest.raises(InputError, match=r"^backend 'triton': q is on cpu, kernels take CUDA tensors"):
            call()


def on_gpu(d_qk: int = 16, d_hv: int = 24, dtype: torch.dtype = torch.bfloat16) -> tuple[Inputs, checks.Sizes]:
    """Inputs that claim to be on a GPU: they have no data."""
    with FakeTensorMode(), torch.device("cuda"):
        q, k, v = (torch.empty(2, 5, 2, width, dtype=dtype) for width in (d_qk, d_qk, d_hv))
        i, f = (torch.empty(2, 5, 2) for _ in range(2))
    return (q, k, v, i, f), checks.check_inputs(q, k, v, i, f)


@pytest.mark.parametrize(
    ("capability", "options", "message"),
    [
        ((8, 0), {}, None),
        ((12, 0), {"d_qk": 512, "d_hv": 512, "dtype": torch.float16}, None),
        ((9, 0), {"dtype": torch.float32}, None),
        ((7, 5), {}, "this GPU has compute capability 7.5, kernels need 8.0 or later"),
        ((9, 0), {"d_qk": 8}, "d_qk = 8, kernels take head sizes from 16 to 512"),
        ((9, 0), {"d_hv": 513}, "d_hv = 513, kernels take head sizes from 16 to 512"),
        ((9, 0), {"dtype": torch.float64}, "q is float64, kernels take bfloat16, float16, float32"),
    ],
)
def test_which_gpus_and_inputs_triton_takes(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], options: dict[str, Any], message: str | None
) -> None:
    """`auto` chooses Triton exactly where naming it is not refused."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    inputs, sizes = on_gpu(**options)
    assert checks.choose_backend("auto", inputs, sizes) == ("triton" if message is None else "torch")
    assert checks.choose_backend("torch", inputs, sizes) == "torch"
    if message is None:
        assert checks.choose_backend("triton", inputs, sizes) == "triton"
        return
    with pytest.raises(InputError, match=f"^backend 'triton': {message}; backend='torch' can, and 'auto' chooses it"):
        checks.choose_backend("triton", inputs, sizes)


def test_a_gpu_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that run the kernels: a call of a few microseconds waits for the answer. Each GPU by itself."""
    asked: list[torch.device] = []

    def capability(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return (9, 0) if device.index == 0 else (7, 5)

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    first, second = (torch.device("cuda", index) for index in range(2))
    found = [checks.machine_obstacle(device) is None for device in (first, second, first, second)]
    assert found == [True, False, True, False]
    assert asked == [first, second, second]


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    inputs, sizes = on_gpu()
    assert checks.choose_backend("auto", inputs, sizes) == "torch"
    with pytest.raises(InputError, match=r"^backend 'triton': Triton is not installed \(extra 'kernels', on Linux\)"):
        checks.choose_backend("triton", inputs, sizes)


#: The package named cannot be found, as if it were not installed.
HIDE = """
import sys
class Hide:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == {!r}:
            raise ModuleNotFoundError(f"No module named {{name}}")
sys.meta_path.insert(0, Hide)
"""


@pytest.mark.parametrize(
    ("hidden", "code", "message"),
    [
        ("torch", "import companion.kernels", "companion.kernels needs torch (extra 'kernels'"),
        ("torch", "import companion, companion.cli.dispatch; print('fine')", ""),
        ("triton", "import companion.kernels; print('fine')", ""),
    ],
)
def test_without_the_packages(hidden: str, code: str, message: str) -> None:
    done = subprocess.run([sys.executable, "-c", HIDE.format(hidden) + code], capture_output=True, text=True)
    if message:
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith(f"companion.errors.InputError: {message}")
    else:
        assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_triton_is_imported_only_when_it_runs() -> None:
    code = (
        "import sys, torch; from companion.kernels import mlstm; x = torch.ones(1, 3, 1, 16); g = x[..., 0]; "
        "mlstm(x, x, x, g, g); sys.exit('companion.kernels.mlstm.ops' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
