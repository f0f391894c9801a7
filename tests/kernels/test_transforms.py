"""Transforms of torch: the plain-torch backends go through all of them, and the Triton kernels refuse by one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mlstm_inputs import mlstm_inputs, mlstm_state, relative_error
from torch.autograd import forward_ad

from companion.errors import InputError
from companion.kernels import MLSTMState, mlstm, mlstm_step
from companion.kernels.mlstm import checks, transforms
from companion.kernels.mlstm.oracle import mlstm_oracle

TORCH = ("torch", "torch-parallel", "torch-recurrent")
Tensors = tuple[torch.Tensor, ...]
#: Of `mlstm`, with a last chunk that is filled up.
LENGTH, OPTIONS = 7, {"torch": {"chunk_size": 4}}


def sequence(backend: str, gate: str = "exponential") -> Callable[..., Tensors]:
    """h, C, n, m of q, k, v, i, f and the state before."""

    def call(*x: torch.Tensor) -> Tensors:
        options: dict[str, Any] = {"gate": gate, "backend": backend, **OPTIONS.get(backend, {})}
        h, state = mlstm(*x[:5], initial_state=MLSTMState(*x[5:]), return_state=True, **options)
        return (h, *state)

    return call


def step(backend: str) -> Callable[..., Tensors]:
    def call(*x: torch.Tensor) -> Tensors:
        q, k, v, i, f, *state_before = x
        h, state = mlstm_step(q, k, v, i, f, MLSTMState(*state_before), backend=backend)
        return (h, *state)

    return call


def points(seed: int = 0, *, token: bool = False) -> Tensors:
    inputs = mlstm_inputs(LENGTH, seed=seed)
    return (*((x[:, 0] for x in inputs) if token else inputs), *mlstm_state(seed=seed + 100))


def check_all(found: Tensors, expected: Tensors, tolerance: float) -> None:
    for name, x, reference in zip("hCnm", found, expected, strict=True):
        assert x.shape == reference.shape, name
        assert relative_error(x, reference) < tolerance, name


def jvp(call: Callable[..., Tensors], at: Tensors, along: Tensors) -> Any:
    """What `call` gives, and its derivative along `along`."""
    return torch.func.jvp(call, at, along)


def slope(call: Callable[..., Tensors], at: Tensors, along: Tensors, width: float = 1e-6) -> list[torch.Tensor]:
    """Central differences."""
    ahead, behind = (call(*(x + s * y for x, y in zip(at, along, strict=True))) for s in (width, -width))
    return [(a - b) / (2 * width) for a, b in zip(ahead, behind, strict=True)]


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize("backend", TORCH)
def test_forward_mode(backend: str, gate: str) -> None:
    call, at, along = sequence(backend, gate), points(), points(1)
    expected = tuple(slope(call, at, along))
    h, tangents = jvp(call, at, along)
    check_all(h, call(*at), 1e-12)
    check_all(tangents, expected, 1e-7)
    with forward_ad.dual_level():
        found = call(*map(forward_ad.make_dual, at, along))
        check_all(tuple(forward_ad.unpack_dual(x).tangent for x in found), expected, 1e-7)


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize("backend", TORCH)
def test_vmap_is_a_loop(backend: str, gate: str) -> None:
    call, examples = sequence(backend, gate), [points(seed) for seed in range(3)]
    expected = tuple(map(torch.stack, zip(*(call(*x) for x in examples), strict=True)))
    check_all(torch.func.vmap(call)(*map(torch.stack, zip(*examples, strict=True))), expected, 1e-12)
    # only the forget gates differ
    gates = torch.stack([x[4] for x in examples])
    first = examples[0]
    found = torch.func.vmap(lambda f: call(*first[:4], f, *first[5:]))(gates)
    expected = tuple(map(torch.stack, zip(*(call(*first[:4], f, *first[5:]) for f in gates), strict=True)))
    check_all(found, expected, 1e-12)


@pytest.mark.parametrize("backend", TORCH)
def test_gradients_of_every_example(backend: str) -> None:
    def loss(*x: torch.Tensor) -> torch.Tensor:
        return sequence(backend)(*x)[0].square().sum()

    examples = [points(seed) for seed in range(3)]
    every = tuple(range(8))
    found = torch.func.vmap(torch.func.grad(loss, every))(*map(torch.stack, zip(*examples, strict=True)))
    for number, x in enumerate(examples):
        leaves = [y.clone().requires_grad_() for y in x]
        h, _ = mlstm_oracle(*leaves[:5], initial_state=MLSTMState(*leaves[5:]))
        expected = torch.autograd.grad(h.square().sum(), leaves)
        for ours, reference in zip(found, expected, strict=True):
            assert float((ours[number] - reference).norm()) < 1e-9 * float(reference.norm()) + 1e-12


def squares(*x: torch.Tensor) -> torch.Tensor:
    return torch.stack([y.square().sum() for y in x]).sum()


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize("backend", TORCH)
def test_second_derivatives(backend: str, gate: str) -> None:
    """By torch.autograd twice and by forward over reverse mode, against differences of gradients of the oracle."""

    def loss(*x: torch.Tensor) -> torch.Tensor:
        return squares(*sequence(backend, gate)(*x))

    def of_oracle(*x: torch.Tensor) -> Tensors:
        leaves = [y.detach().requires_grad_() for y in x]
        h, state = mlstm_oracle(*leaves[:5], initial_state=MLSTMState(*leaves[5:]), gate=gate)
        return torch.autograd.grad(squares(h, *state), leaves)

    at, along = points(), points(1)
    expected = slope(of_oracle, at, along)
    leaves = [x.clone().requires_grad_() for x in at]
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    twice = torch.autograd.grad(first, leaves, along)
    _, forward = jvp(torch.func.grad(loss, tuple(range(8))), at, along)
    size = float(torch.cat([x.flatten() for x in expected]).norm())
    for found, again, reference in zip(twice, forward, expected, strict=True):
        assert float((found - reference).norm()) < 1e-6 * float(reference.norm()) + 1e-9 * size
        assert float((found - again).norm()) < 1e-9 * size


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_step_under_transforms_leaves_the_state_alone(backend: str) -> None:
    call, at, along = step(backend), points(token=True), points(1, token=True)
    before = [x.clone() for x in at]
    _, tangents = jvp(call, at, along)
    tokens = [torch.stack([x, y]) for x, y in zip(at[:5], along[:5], strict=True)]
    found = torch.func.vmap(lambda *x: call(*x, *at[5:]))(*tokens)
    for x, old in zip(at, before, strict=True):
        assert torch.equal(x, old)
    fresh = step("torch")
    expected = [fresh(*(y.clone() for y in (*x[:5], *at[5:]))) for x in (at, along)]
    check_all(found, tuple(map(torch.stack, zip(*expected, strict=True))), 1e-12)
    check_all(tangents, tuple(slope(lambda *x: fresh(*(y.clone() for y in x)), at, along)), 1e-7)


LINES = {
    "jvp": r"kernels have no forward-mode derivative \(torch.func.jvp, torch.autograd.forward_ad\)",
    "vmap": r"kernels do not run under torch.func.vmap",
    "grad": r"kernels do not run under torch.func.grad, vjp or jacrev \(torch.autograd.grad and backward\(\) work\)",
}


def transform(name: str, call: Callable[..., Any], x: list[torch.Tensor], number: int) -> None:
    """The call under a transform of one of its tensors alone."""

    def of_one(y: torch.Tensor) -> Any:
        return call(*x[:number], y, *x[number + 1 :])

    y = x[number]
    if name == "jvp":
        torch.func.jvp(of_one, (y,), (torch.ones_like(y),))
    elif name == "dual":
        with forward_ad.dual_level():
            of_one(forward_ad.make_dual(y, torch.ones_like(y)))
    elif name == "vmap":
        torch.func.vmap(of_one)(torch.stack([y, y]))
    elif name == "grad":
        torch.func.grad(of_one)(y)
    elif name == "vmap of grad":
        torch.func.vmap(torch.func.grad(of_one))(torch.stack([y, y]))


@pytest.mark.parametrize(
    ("name", "line"),
    [("jvp", "jvp"), ("dual", "jvp"), ("vmap", "vmap"), ("grad", "grad"), ("vmap of grad", "grad")],
)
@pytest.mark.parametrize("backend", ["triton", "auto"])
@pytest.mark.parametrize("number", [0, 3, 5])
def test_the_kernels_refuse(monkeypatch: pytest.MonkeyPatch, name: str, line: str, backend: str, number: int) -> None:
    """Where `auto` chose them too; of a step `auto` chooses torch instead, as where it needs a gradient."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    message = rf"^backend 'triton': {LINES[line]}; use backend='torch', which can$"
    token = [x.float() for x in points(token=True)]
    if backend == "triton":
        with pytest.raises(InputError, match=message):
            transform(name, step(backend), token, number)
    else:
        monkeypatch.setattr(checks, "choose_backend", lambda *arguments: "triton")
    with pytest.raises(InputError, match=message):
        transform(name, sequence(backend), [x.float() for x in points()], number)


def test_transforms_of_other_tensors_are_no_obstacle() -> None:
    """Unless the kernels are to be differentiated inside: torch would stop there."""
    x, leaf = torch.ones(3), torch.ones(3, requires_grad=True)
    found = []

    def look(s: torch.Tensor) -> torch.Tensor:
        found.append([transforms.transform_obstacle(tensors) for tensors in ([x], [x, leaf], [x, s])])
        return s.sum()

    torch.func.vmap(look)(torch.ones(2))
    torch.func.grad(look)(torch.ones(2))
    torch.func.jvp(look, (torch.ones(2),), (torch.ones(2),))
    torch.func.functionalize(look)(torch.ones(2))
    with forward_ad.dual_level():
        look(forward_ad.make_dual(torch.ones(2), torch.ones(2)))
    look(torch.ones(2))
    vmap, grad, forward = transforms.VMAP, transforms.REVERSE_MODE, transforms.FORWARD_MODE
    assert found == [
        [None, vmap, vmap],
        [None, grad, grad],
        [None, forward, forward],
        [None, None, None],
        [None, None, forward],
        [None, None, None],
    ]


def test_a_compiled_call_that_comes_under_forward_mode_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is traced anew, rather than give a derivative of zero."""
    compiled = torch.compile(lambda x: 2 * x if transforms.transform_obstacle([x]) is None else 3 * x, backend="eager")
    x = torch.ones(3)
    assert compiled(x)[0] == 2
    with forward_ad.dual_level():
        assert compiled(forward_ad.make_dual(x, x))[0] == 3
    assert torch.compile(torch.func.vmap(compiled), backend="eager", fullgraph=True)(x)[0] == 3
    assert compiled(x)[0] == 2
