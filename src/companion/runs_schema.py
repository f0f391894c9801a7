"""What a run table is: its columns, their units, and the checks that every table passes when it is loaded.

One row is one training run. Only five columns are required (`REQUIRED_COLUMNS`); `COLUMNS` describes all that the
package knows. `RUN_SCHEMA` is the same as a pandera schema, for a table that is in memory already; `check_runs`
applies it and turns what it finds into one line that names row, column and value. `check_header` and `convert` take
text to typed columns.
"""

import difflib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray

from companion.errors import InputError

MAX_LOSS = 20.0
"""No language model has a cross-entropy this high (nats per token; a uniform guess over 50304 tokens costs 10.8)."""
FLOPS_RATIO = (0.05, 50.0)
"""Range of train_flops / (6 N D) outside which a unit must have slipped (the paper's runs lie within 0.7 to 2.1)."""
_INT64_MAX = 2**63 - 1


class RunTableWarning(UserWarning):
    """A run table holds something that is ignored: a column nobody knows, or one without any value."""


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a run table: `kind` of its values, `unit` and `meaning` in words, `required` or not.

    Numbers and integers are positive; `upper` is an exclusive upper bound, `zero` allows zero. A flag is the integer
    0 or 1, which may be written as false or true.
    """

    name: str
    kind: Literal["text", "integer", "number", "flag"]
    unit: str
    meaning: str
    required: bool = False
    upper: float | None = None
    zero: bool = False


_SPECS = (
    ColumnSpec("architecture", "text", "", "model family, lower case: xlstm, transformer, or a name of your own", True),
    ColumnSpec("experiment", "text", "", "design the run belongs to: isoflop, tokenparam, or a name of your own"),
    ColumnSpec("context_length", "integer", "tokens", "T, tokens per training sequence"),
    ColumnSpec("isoflop_budget", "number", "FLOP", "nominal compute of the IsoFLOP profile the run belongs to"),
    ColumnSpec("num_params", "integer", "parameters", "N, all trained parameters, embedding included", True),
    ColumnSpec("num_tokens", "integer", "tokens", "D, tokens seen in training", True),
    ColumnSpec("train_flops", "number", "FLOP", "C, compute of the whole training, forward and backward", True),
    ColumnSpec(
        "val_loss", "number", "nats per token", "validation cross-entropy at the end of training", True, MAX_LOSS
    ),
    ColumnSpec("d_model", "integer", "", "width of the residual stream"),
    ColumnSpec("n_layers", "integer", "", "number of blocks"),
    ColumnSpec("n_heads", "integer", "", "number of heads of the sequence mixer"),
    ColumnSpec("d_qk", "integer", "", "width of queries and keys, per head"),
    ColumnSpec("d_hv", "integer", "", "width of values, per head"),
    ColumnSpec("d_ff", "integer", "", "inner width of the feed-forward layer"),
    ColumnSpec("vocab_size", "integer", "", "rows of the embedding; empty: 50304"),
    ColumnSpec("n_kv_heads", "integer", "", "heads of keys and values of a transformer; empty: n_heads"),
    ColumnSpec(
        "tied_embeddings", "flag", "", "1 if embedding and unembedding share a matrix; empty: 0", False, 2, True
    ),
    ColumnSpec("qk_norm", "flag", "", "1 if a transformer normalizes queries and keys; empty: 0", False, 2, True),
    ColumnSpec("seed", "integer", "", "seed of the run, which tells repeated runs apart", zero=True),
    ColumnSpec("batch_size_seqs", "integer", "sequences", "sequences per optimizer step"),
    ColumnSpec("train_steps", "integer", "steps", "optimizer steps"),
    ColumnSpec("learning_rate", "number", "", "peak learning rate"),
    ColumnSpec("train_loss", "number", "nats per token", "training cross-entropy at the end", upper=MAX_LOSS),
    ColumnSpec("multiplicity_in_published_fits", "integer", "", "times the run was counted in the published fits"),
    ColumnSpec("source", "text", "", "how the loss was obtained"),
    ColumnSpec("loss_uncertainty", "number", "nats per token", "error of val_loss as a record of what was measured"),
    ColumnSpec(
        "imposed_published_fit", "integer", "", "1 if val_loss was reconstructed with a published fit", False, 2, True
    ),
    ColumnSpec(
        "left_out_of_published_slopes", "integer", "", "1 if left out of the over-training slopes", False, 2, True
    ),
)
COLUMNS: dict[str, ColumnSpec] = {spec.name: spec for spec in _SPECS}
"""All columns the package knows, by name, in the order of the project's own table."""
REQUIRED_COLUMNS: tuple[str, ...] = tuple(name for name, spec in COLUMNS.items() if spec.required)
OPTIONAL_COLUMNS: tuple[str, ...] = tuple(name for name, spec in COLUMNS.items() if not spec.required)
SHAPE_COLUMNS: tuple[str, ...] = ("d_model", "n_layers", "n_heads", "d_qk", "d_hv", "d_ff")
OPTIONAL_SHAPE_COLUMNS: tuple[str, ...] = ("vocab_size", "n_kv_heads", "tied_embeddings", "qk_norm")
"""Shapes with a default, which every count uses where a table has them."""


def show(value: object) -> str:
    """`value` as an error message prints it: on one line, text in quotes and cut after 60 characters."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.15g}"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


# ---- header --------------------------------------------------------------------------------------

_SYMBOLS = {"n": "num_params", "d": "num_tokens", "c": "train_flops", "arch": "architecture", "model": "architecture"}


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _near(name: str, candidates: Sequence[str], cutoff: float) -> str | None:
    """The one of `candidates` that `name` is likely meant to be, or None. Both sides are compared in lower case."""
    plain = {_plain(candidate): candidate for candidate in candidates}
    match = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=cutoff)
    return plain[match[0]] if match else None


def check_header(names: Sequence[str], source: str, row: int = 1, strict: bool = False) -> None:
    """Check the column names of a table.

    A required column that is missing, a name given twice, no name, or a name that looks like a misspelt known one is an
    error. Any other unknown column is kept and reported by one `RunTableWarning`; with `strict` it is an error too.

    Raises
    ------
    InputError
        one line with `source`, `row` (of the header) and the column.
    """
    where = f"{source}: row {row}, column"
    for place, name in enumerate(names, start=1):
        if not name:
            raise InputError(f"{where} {place}: has no name (a row index written along? drop it with index=False)")
        if name in names[: place - 1]:
            raise InputError(f"{where} {show(name)}: appears twice (columns {names.index(name) + 1} and {place})")
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    for name in missing:
        symbol = [other for other in unknown if _SYMBOLS.get(_plain(other)) == name]
        guess = symbol[0] if symbol else _near(name, unknown, 0.6)
        if guess is not None:
            raise InputError(f"{where} {show(name)} is missing; did you mean {show(guess)}?")
    if len(missing) == len(REQUIRED_COLUMNS):
        wanted = ", ".join(REQUIRED_COLUMNS)
        raise InputError(f"{where} {show(missing[0])} is missing, and so are all others of a run table ({wanted})")
    if missing:
        raise InputError(f"{where} {show(missing[0])} is missing; the table has {', '.join(map(show, names))}"[:500])
    absent = [name for name in COLUMNS if name not in names]
    for name in unknown:
        guess = _near(name, absent, 0.85)
        if guess is not None:
            raise InputError(f"{where} {show(name)} is not known; did you mean {show(guess)}?")
    if unknown and strict:
        raise InputError(f"{where} {show(unknown[0])} is not known; known are {', '.join(COLUMNS)}")
    if unknown:
        listed = ", ".join(map(show, unknown[:10])) + (" and more" if len(unknown) > 10 else "")
        warnings.warn(RunTableWarning(f"{source}: kept without a check: column {listed}"), stacklevel=3)


# ---- cells ---------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NO_VALUE = {"nan", "null", "none", "na", "n/a", "#n/a", "<na>"}
_FLAGS = {"false": "0", "no": "0", "true": "1", "yes": "1"}
_INFINITE = {"inf", "infinity", "#div/0!"}


def _bad_cell(text: str, spec: ColumnSpec | None) -> str | None:
    """What is wrong with a cell that should hold a number, or None."""
    if not text:
        return "the cell is empty" if spec is not None and spec.required else None
    plain = text.lower().lstrip("+-")
    if plain in _NO_VALUE:
        return f"{show(text)} is no value" + ("" if spec is None or spec.required else "; leave the cell empty")
    if plain in _INFINITE or (_NUMBER.fullmatch(text) and np.isinf(float(text))):
        return f"{show(text)} is infinite"
    return None if _NUMBER.fullmatch(text) else f"{show(text)} is not a number"


def _numbers(texts: Sequence[str], rows: Sequence[int], spec: ColumnSpec, source: str) -> NDArray[np.float64]:
    joined = "".join(texts)
    try:
        if "_" in joined or not joined.isascii():
            raise ValueError("Python reads 1_000 and other scripts' digits; a table should not hold them")
        values = np.array([text or "nan" for text in texts], dtype=object).astype(np.float64)
        suspicious: NDArray[np.intp] = np.flatnonzero(~np.isfinite(values))
    except ValueError:
        suspicious = np.arange(len(texts))
    for i in suspicious.tolist():
        problem = _bad_cell(texts[i], spec)
        if problem:
            raise InputError(f"{source}: row {rows[i]}, column {spec.name!r}: {problem}")
    return np.array([text or "nan" for text in texts], dtype=object).astype(np.float64)


def convert(name: str, cells: Sequence[str], rows: Sequence[int], source: str) -> pd.Series:
    """Turn the text cells of one column into values.

    Parameters
    ----------
    name, cells
        a key of `COLUMNS` and its cells (n,); an empty cell means "not known" and is allowed in optional columns.
    rows
        row numbers (n,) for messages.

    Returns
    -------
    Series (n,): int64 for integers, float64 for numbers and for integers with empty cells (NaN), str for text.

    Raises
    ------
    InputError
        for the first cell that is empty though required, not a number, NaN, infinite, not whole or beyond 2^63.
    """
    spec = COLUMNS[name]
    texts = [cell.strip() for cell in cells]
    if spec.kind == "text":
        for text, row in zip(texts, rows, strict=True):
            if spec.required and (not text or text.lower() in _NO_VALUE):
                problem = f"{show(text)} is no value" if text else "the cell is empty"
                raise InputError(f"{source}: row {row}, column {name!r}: {problem}")
        if name == "architecture":
            texts = [text.lower() for text in texts]
        return pd.Series([text or None for text in texts], name=name)
    if spec.kind == "flag":
        texts = [_FLAGS.get(text.lower(), text) for text in texts]
    values = _numbers(texts, rows, spec, source)
    if spec.kind == "number":
        return pd.Series(values, name=name)
    known = ~np.isnan(values)
    exact: dict[int, int] = {}
    for i in np.flatnonzero(known & (np.abs(values) >= 2.0**53)).tolist():  # float64 misses whole numbers from here on
        exact[i] = int(Decimal(texts[i]).to_integral_value())
        if abs(exact[i]) > _INT64_MAX:
            raise InputError(
                f"{source}: row {rows[i]}, column {name!r}: {texts[i]} is beyond 2^63, too large for a count"
            )
    for i in np.flatnonzero(known & (np.abs(values - np.rint(values)) > 1e-6)).tolist():
        raise InputError(f"{source}: row {rows[i]}, column {name!r}: {texts[i]} is not a whole number")
    if not known.all():
        return pd.Series(np.rint(values), name=name)
    values[list(exact)] = 0.0
    integers = np.rint(values).astype(np.int64)
    for i, value in exact.items():
        integers[i] = value
    return pd.Series(integers, name=name)


def convert_unknown(name: str, cells: Sequence[str]) -> pd.Series:
    """A column the package does not know: float64 if every filled cell is a finite number, else the text as it is."""
    texts = [cell.strip() for cell in cells]
    if any(texts) and all(_bad_cell(text, None) is None for text in texts):
        return pd.Series(np.array([float(text or "nan") for text in texts]), name=name)
    return pd.Series([text or None for text in texts], name=name)


# ---- the schema ----------------------------------------------------------------------------------


def _column(spec: ColumnSpec) -> pa.Column:
    checks = []
    if spec.kind != "text":
        checks.append(
            pa.Check.ge(0, error="must not be negative") if spec.zero else pa.Check.gt(0, error="must be positive")
        )
        checks.append(pa.Check(np.isfinite, error="must be finite"))
    if spec.upper is not None:
        checks.append(pa.Check.lt(spec.upper, error=f"must be below {spec.upper:g}"))
    dtype = "int64" if spec.required and spec.kind == "integer" else None
    unit = f" [{spec.unit}]" if spec.unit else ""
    return pa.Column(dtype, checks, nullable=not spec.required, required=spec.required, description=spec.meaning + unit)


def _product(frame: pd.DataFrame) -> pd.Series:
    """batch_size_seqs * context_length * train_steps in float64; NaN where one of them is not known."""
    factors = ("batch_size_seqs", "context_length", "train_steps")
    if not set(factors) <= set(frame.columns):
        return pd.Series(np.nan, index=frame.index)
    return frame[list(factors)].astype(float).prod(axis=1, skipna=False)


def _flops_ratio(frame: pd.DataFrame) -> pd.Series:
    return frame["train_flops"] / (6.0 * frame["num_params"].astype(float) * frame["num_tokens"].astype(float))


def _tokens_message(frame: pd.DataFrame, at: int) -> str:
    tokens, product = frame["num_tokens"].iloc[at], _product(frame).iloc[at]
    return f"column 'num_tokens': {show(tokens)} is not batch_size_seqs * context_length * train_steps = {product:.15g}"


def _flops_message(frame: pd.DataFrame, at: int) -> str:
    flops, ratio = frame["train_flops"].iloc[at], _flops_ratio(frame).iloc[at]
    low, high = FLOPS_RATIO
    return (
        f"column 'train_flops': {show(flops)} is {ratio:.3g} times 6 N D, outside {low:g} to {high:g}: "
        "a unit has slipped in train_flops, num_params or num_tokens"
    )


def _twin_message(frame: pd.DataFrame, at: int) -> str:
    columns = list(frame.columns)
    twins = frame.groupby(columns, dropna=False, sort=False).ngroup().to_numpy()
    first = frame.index[np.flatnonzero(twins == twins[at])[0]]
    return f"every column: the same as row {first}; remove one, or tell repeated runs apart by a column such as seed"


_ROW_CHECKS: dict[str, tuple[Callable[[pd.DataFrame], Any], Callable[[pd.DataFrame, int], str]]] = {
    "flops": (lambda frame: _flops_ratio(frame).between(*FLOPS_RATIO), _flops_message),
    "tokens": (lambda frame: _product(frame).isna() | (_product(frame) == frame["num_tokens"]), _tokens_message),
    "twins": (lambda frame: ~frame.duplicated(), _twin_message),
}

RUN_SCHEMA: pa.DataFrameSchema = pa.DataFrameSchema(
    {name: _column(spec) for name, spec in COLUMNS.items()}, name="run table"
)
"""Columns, types and ranges of a run table. `check_runs` adds the checks that need more than one column."""
_ROW_SCHEMA = pa.DataFrameSchema(
    checks=[pa.Check(check, error=name, ignore_na=False) for name, (check, _) in _ROW_CHECKS.items()]
)


def check_runs(frame: pd.DataFrame, source: str = "the run table") -> pd.DataFrame:
    """Check a table that is in memory: columns, types and ranges, then what ties columns together.

    Those are: train_flops within `FLOPS_RATIO` of 6 N D; num_tokens equal to batch_size_seqs * context_length *
    train_steps where all are known; no row equal to another in every column (repeated seeds differ in their loss and
    are fine).

    Parameters
    ----------
    frame
        a run table; its index must be unique and names the rows in messages.

    Returns
    -------
    `frame` itself.

    Raises
    ------
    InputError
        for the first row that fails, with `source`, row, column and value.
    """
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()][0]
        raise InputError(f"{source}: row {show(twice)}: the index names more than one row; use reset_index(drop=True)")
    try:
        RUN_SCHEMA.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise InputError(_first_failure(frame, error, source)) from None
    try:
        _ROW_SCHEMA.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        for name, (_, message) in _ROW_CHECKS.items():
            failed = cases.loc[cases["check"] == name, "index"]
            if len(failed):
                row = failed.min()
                raise InputError(f"{source}: row {row}, {message(frame, frame.index.to_list().index(row))}") from None
        raise InputError(f"{source}: {' '.join(str(error).split())}"[:500]) from None
    return frame


def _first_failure(frame: pd.DataFrame, error: pa.errors.SchemaErrors, source: str) -> str:
    cases = error.failure_cases
    whole = cases[cases["index"].isna()]
    if len(whole):  # a column that is missing or has another type
        case = whole.iloc[0]
        if case["check"] == "column_in_dataframe":
            return f"{source}: column {show(case['failure_case'])} is missing"
        return f"{source}: column {show(case['column'])}: {show(case['failure_case'])} fails {show(case['check'])}"
    row = cases["index"].min()
    here = cases[cases["index"] == row]
    order = {name: place for place, name in enumerate(frame.columns)}
    case = min((case for _, case in here.iterrows()), key=lambda case: order[case["column"]])
    name, check = case["column"], str(case["check"])
    if check == "not_nullable":
        return f"{source}: row {row}, column {name!r}: has no value"
    value = frame.loc[row, name]
    return f"{source}: row {row}, column {name!r}: {show(value)} {check if ' ' in check else 'fails ' + check}"
