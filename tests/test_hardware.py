"""The table of hardware: known peaks, and faults of a reader's own table."""

from pathlib import Path

import pytest

from companion.errors import InputError
from companion.hardware import (
    REFERENCE_HARDWARE,
    Hardware,
    get_hardware,
    hardware_table,
    known_hardware,
    load_hardware,
)

HEADER = "name,label,peak_flops_per_s,peak_bytes_per_s,memory_bytes,num_multiprocessors,source\n"
ROW = "mine,My device,1e14,1e12,16e9,80,a datasheet\n"


def test_known_peaks() -> None:
    """NVIDIA H100 Tensor Core GPU datasheet: 1,979 bf16 TFLOPS with sparsity, 3.35 TB/s, 80 GB; 132 multiprocessors."""
    h100 = get_hardware("h100-sxm")
    assert h100.peak_flops_per_s == 1979e12 / 2
    assert (h100.peak_bytes_per_s, h100.memory_bytes, h100.num_multiprocessors) == (3.35e12, 80e9, 132)
    assert h100.ridge == pytest.approx(295.4, abs=0.1)
    assert get_hardware("a100-sxm").num_multiprocessors == 108


def test_peak_the_authors_normalize_by() -> None:
    assert get_hardware(REFERENCE_HARDWARE).peak_flops_per_s == pytest.approx(989e12, rel=1e-3)


def test_every_entry_is_plausible_and_has_a_source() -> None:
    table = hardware_table()
    assert list(table["name"]) == list(known_hardware())
    assert table["source"].str.len().min() > 30
    assert table["peak_flops_per_s"].between(1e14, 1e16).all()
    assert table["peak_bytes_per_s"].between(5e11, 1e13).all()
    assert table["memory_bytes"].between(1e10, 1e12).all()


def test_an_object_is_itself() -> None:
    entry = get_hardware("l40s")
    assert get_hardware(entry) is entry


def test_own_table(tmp_path: Path) -> None:
    path = tmp_path / "hardware.csv"
    path.write_text(HEADER + ROW)
    mine = load_hardware(path)["mine"]
    assert mine.label == "My device"
    assert mine.ridge == 100
    path.write_text(HEADER.replace("source\n", "source,color\n") + ROW.replace("datasheet\n", "datasheet,red\n"))
    assert load_hardware(path)["mine"] == mine, "further columns are left alone"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + ROW + ROW, "row 2, column 'name': 'mine' appears twice"),
        (HEADER + ROW.replace("1e12", "0"), "row 2, column 'peak_bytes_per_s': 0.0 must be positive"),
        (HEADER + ROW.replace("1e12", "fast"), "row 2, column 'peak_bytes_per_s': 'fast' is not a number"),
        (HEADER + ROW.replace("80,", "80.5,"), "row 2, column 'num_multiprocessors': '80.5' is not a whole number"),
        (HEADER + ROW.replace("a datasheet", ""), "row 2, column 'source': the cell is empty"),
        (HEADER.replace("memory_bytes,", "") + ROW.replace("16e9,", ""), "column 'memory_bytes' is missing"),
    ],
)
def test_faults_of_a_table(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "hardware.csv"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        load_hardware(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert words in str(raised.value)


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"hardware 'h100' is not known; there are .*h100-sxm"):
        get_hardware("h100")
    with pytest.raises(InputError, match="hardware x: num_multiprocessors 0 is not positive"):
        Hardware(
            name="x",
            label="x",
            peak_flops_per_s=1,
            peak_bytes_per_s=1,
            memory_bytes=1,
            num_multiprocessors=0,
            source="",
        )
