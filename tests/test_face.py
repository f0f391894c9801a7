"""The first page of the README: five names, loaded when they are used."""

import subprocess
import sys

import pytest

import companion


def test_five_names_work() -> None:
    from companion import LossSurface, count_flops, fit, load_runs, preset

    assert [each.__name__ for each in (LossSurface, count_flops, fit, load_runs, preset)] == companion.__all__
    assert set(companion.__all__) <= set(dir(companion))
    with pytest.raises(AttributeError, match="has no attribute 'fits'"):
        companion.fits  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'fits'"):
        from companion import fits  # noqa: F401


def test_a_bare_import_loads_nothing() -> None:
    code = "import sys, companion; print([m for m in ('numpy', 'pandas', 'scipy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
