"""What the README says can be typed, and works."""

import re
import shlex
from pathlib import Path

import pytest

from companion import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^companion (.+)$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").symlink_to(ROOT / "data")  # what a command writes does not stay in the checkout
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(command)) == 0
    assert capsys.readouterr().out


def test_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_readme_is_short_and_its_files_exist() -> None:
    assert len(README.splitlines()) < 120
    assert len(COMMANDS) >= 5
    for path in [*re.findall(r"!\[[^]]*\]\(([^)]+)\)", README), "CONTRIBUTING.md", "CITATION.cff", "data/README.md"]:
        assert (ROOT / path).is_file(), path
