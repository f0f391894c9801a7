"""Which code a record belongs to: what changes an identity and what does not; the records of the code before it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from companion.benchmarks.kernels import identity
from companion.benchmarks.kernels.identity import PACKAGE, Identity, identity_of, identity_today, operator_identity
from companion.benchmarks.records import read_records
from companion.errors import InputError
from companion.paths import data_dir

#: The hash of all kernels and all of the benchmark that records named before operators had identities.
BEFORE = "332c2631ec35b5f9"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that may be changed."""
    shutil.copytree(PACKAGE, tmp_path / "companion", ignore=shutil.ignore_patterns("_data", "__pycache__"))
    return tmp_path / "companion"


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after), encoding="utf-8")


def test_records_from_before_operators_have_their_later_identity() -> None:
    """The kernels only moved then. Whether the newest records are of today's code, chapter 10 says beside them."""
    path = data_dir() / "benchmarks" / "kernels.jsonl"
    named = {r["parameters"]["code"] for r in read_records(path) if r["benchmark"] == "kernels"}
    assert BEFORE in named
    found = identity_of({"code": BEFORE})
    assert (found.operator, found.code, found.harness) == ("mlstm", "bb751e1d548a2179", "615fb28d927a9d2d")


def test_what_makes_no_record_stale(package: Path) -> None:
    """Comments, docstrings, imports, moves and renamed files, another operator, how records are kept."""
    before = operator_identity("mlstm", package), identity.harness_identity("mlstm", package)
    assert before == identity_today()[1:]
    configs, gates = (package / "kernels" / "mlstm" / name for name in ("configs.py", "triton_gates.py"))
    edit(configs, "TILE = 32\n", "TILE = 32  # tokens\n\n\n")
    edit(
        configs, '    """Whether a candidate of a kernel was asked for by `forced`."""\n', '    """Whether it was."""\n'
    )
    edit(configs, "from functools import cache\n", "import functools as f\nfrom functools import cache\n")
    edit(configs, "@cache\ndef candidates", "@f.cache\ndef candidates")
    gates.rename(gates.with_name("triton_of_gates.py"))
    for file in ("launch.py", "launch_backward.py"):
        edit(package / "kernels" / "mlstm" / file, "triton_gates", "triton_of_gates")
    function = "def is_forced(kernel: str) -> bool:\n    return kernel in _forced\n"
    edit(configs, 'def is_forced(kernel: str) -> bool:\n    """Whether it was."""\n    return kernel in _forced\n', "")
    (package / "kernels" / "common" / "more.py").write_text(
        f"from companion.kernels.mlstm import configs\n\n{function}"
    )
    (package / "kernels" / "other").mkdir()
    (package / "kernels" / "other" / "ops.py").write_text("SIZE = 1\n")
    edit(package / "benchmarks" / "kernels" / "session.py", '"kernel_checks"', '"checks"')
    assert (operator_identity("mlstm", package), identity.harness_identity("mlstm", package)) == before


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("kernels/mlstm/configs.py", "TILE = 32", "TILE = 64"),
        ("kernels/mlstm/state.py", "torch.float32: 1e-30", "torch.float64: 1e-30"),
        ("kernels/common/triton_exponents.py", "return keep_1 * keep_2,", "return keep_1 + keep_2,"),
        ("kernels/common/device.py", "10 * count >= 9 * multiprocessors", "10 * count > 9 * multiprocessors"),
        ("kernels/mlstm/torch_forms.py", "from torch.nn.functional import logsigmoid", "from x import logsigmoid"),
    ],
)
def test_what_makes_records_of_the_operator_stale(package: Path, file: str, before: str, after: str) -> None:
    """Constants, operators, decorators, and what a name of another library stands for."""
    edit(package / file, before, after)
    assert operator_identity("mlstm", package) != identity_today().code
    assert identity.harness_identity("mlstm", package) == identity_today().harness, "the harness is apart"


def test_the_harness_is_apart_from_the_kernels(package: Path) -> None:
    edit(package / "benchmarks" / "kernels" / "timing.py", "WARM_UP = 3", "WARM_UP = 2")
    assert identity.harness_identity("mlstm", package) != identity_today().harness
    assert operator_identity("mlstm", package) == identity_today().code


def test_statements_as_text() -> None:
    """Names as what they stand for, f-strings in one form, and nothing that only says or imports something."""
    plain = "import torch.nn.functional as F\ndef f(x):\n    return F.pad(x, f'{x!r:>{4}} of' f' {x}')\n"
    other = (
        '"""A module."""\nfrom torch.nn.functional import pad as fill\n\n__all__ = ["f"]\n\n\n# why\ndef f(x):\n'
        '    """Pad."""\n    from math import pi\n    return fill(\n        x, f"{x!r:>{4}} of {x}"\n    )\n'
    )
    (text,) = identity.definitions(plain)
    assert identity.definitions(other) == {text}
    assert "Name(torch.nn.functional.pad)" in text
    assert identity.definitions(plain.replace("{4}", "{5}")) != {text}
    assert identity.definitions(plain.replace(" of", " or")) != {text}
    assert identity.definitions("x = None\ny = 0\nz = []\n") == {
        "Assign(targets=[Name(x)], value=Constant())",
        "Assign(targets=[Name(y)], value=Constant(value=0))",
        "Assign(targets=[Name(z)], value=List())",
    }


def test_the_text_is_that_of_every_version_of_python() -> None:
    """Written down from Python 3.11; 3.12 and 3.13 have other trees for f-strings and parameters of types."""
    source = (
        "@d(a=(1, *b))\nasync def f(x: int = 2, /, *y, k: 'T' = ..., **z) -> None:\n    yield f'{{{x=:.{y}}}}' 'b'\n"
    )
    assert identity.definitions(source) == {
        "AsyncFunctionDef(name='f', args=arguments(posonlyargs=[arg(arg='x', annotation=Name(int))], "
        "vararg=arg(arg='y'), kwonlyargs=[arg(arg='k', annotation=Constant(value='T'))], "
        "kw_defaults=[Constant(value=Ellipsis)], kwarg=arg(arg='z'), defaults=[Constant(value=2)]), "
        "body=[Expr(value=Yield(value=JoinedStr('{x=', FormattedValue(value=Name(x), conversion=-1, "
        "format_spec=JoinedStr('.', FormattedValue(value=Name(y), conversion=-1))), '}b')))], "
        "decorator_list=[Call(func=Name(d), keywords=[keyword(arg='a', value=Tuple(elts=[Constant(value=1), "
        "Starred(value=Name(b))]))])], returns=Constant())"
    }


def test_the_table_leads_from_any_identity_to_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmarks").mkdir()
    table = tmp_path / "benchmarks" / identity.TABLE
    steps = {"a": {"code": "b", "harness": "x"}, "b": {"code": "c"}, "x": {"harness": "y"}, "c": {"code": "b"}}
    table.write_text(json.dumps(steps))
    monkeypatch.setattr(identity, "data_dir", lambda: tmp_path)
    identity._known.cache_clear()
    assert identity_of({"code": "a"}) == Identity("mlstm", "c", "y")
    assert identity_of({"operator": "o", "code": "b", "harness": "z"}) == Identity("o", "c", "z")
    assert identity_of({"code": "unknown"}) == Identity("mlstm", "unknown", "unknown")
    identity._known.cache_clear()
    table.write_text("{")
    with pytest.raises(InputError, match=r"kernel_identities\.json: cannot be read"):
        identity_of({"code": "a"})
    identity._known.cache_clear()


def test_a_second_operator_has_an_identity_and_a_harness_of_its_own(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "kernels" / "norm").mkdir()
    (package / "kernels" / "norm" / "ops.py").write_text("SIZE = 1\n")
    (package / "benchmarks" / "kernels" / "norm.py").write_text("REPEATS = 20\n")
    monkeypatch.setitem(identity.OPERATORS, "norm", ("norm", "common"))
    monkeypatch.setitem(identity.HARNESSES, "norm", ("norm", "timing"))

    def both() -> dict[str, tuple[str, str]]:
        of = identity.harness_identity
        return {name: (operator_identity(name, package), of(name, package)) for name in ("mlstm", "norm")}

    before = both()
    assert before["mlstm"] == identity_today()[1:]
    edit(package / "kernels" / "norm" / "ops.py", "SIZE = 1", "SIZE = 2")
    edit(package / "benchmarks" / "kernels" / "norm.py", "REPEATS = 20", "REPEATS = 30")
    after = both()
    assert after["mlstm"] == before["mlstm"]
    assert all(new != old for new, old in zip(after["norm"], before["norm"], strict=True))


@pytest.mark.parametrize("of", [operator_identity, identity.harness_identity])
def test_an_unknown_operator(of: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match="operator 'gdn': there are mlstm"):
        of("gdn")


def test_every_operator_names_files_that_exist() -> None:
    assert identity.HARNESSES.keys() == identity.OPERATORS.keys()
    for folder in (name for names in identity.OPERATORS.values() for name in names):
        assert list((PACKAGE / "kernels" / folder).glob("*.py")), folder
    for module in (name for names in identity.HARNESSES.values() for name in names):
        assert (PACKAGE / "benchmarks" / "kernels" / f"{module}.py").exists(), module
