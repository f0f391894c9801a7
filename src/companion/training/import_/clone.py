"""A shallow clone of the authors' repository, at one commit."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from companion.errors import InputError
from companion.formatting import cut

REPOSITORY = "https://github.com/NX-AI/xlstm_scaling_laws"
#: The commit that is read, of 8 April 2026.
COMMIT = "604bb3062d3a7681bb33e467108cb0a6f81267fc"
#: What git may take to fetch one commit, seconds.
TIMEOUT = 1800


def clone(folder: Path, address: str = REPOSITORY, commit: str = COMMIT) -> Path:
    """Fetch one commit into a folder, without its history; a folder that has it already is left as it is.

    Parameters
    ----------
    folder
        new, empty, or of an earlier call.
    address
        what `git fetch` understands: a web address, or a path.
    commit
        40 hexadecimal digits.

    Raises
    ------
    InputError
        one line: git is missing, the commit cannot be fetched, or the folder holds something else.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise InputError(f"--commit {commit}: 40 hexadecimal digits are needed")
    if address.startswith("-") or "::" in address:  # options of git, and its helpers that run commands
        raise InputError(f"--address {address}: is not the address of a repository")
    if shutil.which("git") is None:
        raise InputError("git is not installed: clone the repository by other means and give the folder")
    if folder.is_dir() and any(folder.iterdir()):
        if (folder / ".git").is_dir() and _git(folder, "rev-parse", "HEAD") == commit:
            return folder
        raise InputError(f"{folder}: holds files that are not the clone of commit {commit[:10]}")
    folder.mkdir(parents=True, exist_ok=True)
    _git(folder, "init", "--quiet")
    _git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", address, commit)
    _git(folder, "checkout", "--quiet", "FETCH_HEAD")
    if (there := _git(folder, "rev-parse", "HEAD")) != commit:
        raise InputError(f"{address}: gave commit {there[:10]} for {commit[:10]}")
    return folder


def _git(folder: Path, *arguments: str) -> str:
    """What a git command prints; without prompts, hooks, or transports that run programs."""
    # GIT_DIR and its like would send the command to another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    options = (f"core.hooksPath={os.devnull}", "protocol.ext.allow=never", "advice.detachedHead=false")
    safe = (*(part for option in options for part in ("-c", option)), "-C", str(folder))
    try:
        done = subprocess.run(
            ["git", *safe, *arguments], env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"git {arguments[0]} took more than {TIMEOUT / 60:g} minutes") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise InputError(f"git {arguments[0]}: {cut(lines[-1], 200)}")
    return done.stdout.strip()
