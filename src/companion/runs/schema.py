"""What a run table is: its columns, their units, and the checks that every table passes when it is loaded.

One row is one training run. Only five columns are required (`REQUIRED_COLUMNS`); `COLUMNS` describes all that the
package knows. `RUN_SCHEMA` is the same as a pandera schema, for a table that is in memory already; `check_runs`
applies it and turns what it finds into one line that names row, column and value. `companion.runs.header` and
`companion.runs.cells` take text to typed columns.
"""

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray

from companion.errors import InputError
from companion.formatting import name_rows, plural, quoted
from companion.runs.overflow import Wrapped, wrapped_flops, wrapped_products

MAX_LOSS = 20.0
"""No language model has a cross-entropy this high (nats per token; a uniform guess over 50304 tokens costs 10.8)."""
FLOPS_RATIO = (0.005, 200.0)
"""Range of train_flops / (6 N D) outside which a unit must have slipped: a slip is a factor of 1000 or more.

The paper's runs lie within 0.7 to 2.1. Mixtures of experts, of which N counts all experts, go down to 0.03, models
whose N leaves out large embeddings or whose context is long go up."""
_MIN_ROUNDED = 1e5
_INT64_MAX = 2**63 - 1


class RunTableWarning(UserWarning):
    """A run table holds something that a reader should know.

    A column that is ignored because it is unknown or has no value, numbers that were rounded, products of whole
    numbers that wrapped.
    """


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
    ColumnSpec(
        "experiment",
        "text",
        "",
        "design the run belongs to: isoflop, tokenparam, learning_rate (at another rate than "
        "the others), or a name of your own",
    ),
    ColumnSpec("context_length", "integer", "tokens", "T, tokens per training sequence"),
    ColumnSpec("isoflop_budget", "number", "FLOP", "nominal compute of the IsoFLOP profile the run belongs to"),
    ColumnSpec("num_params", "integer", "parameters", "N, all trained parameters, embedding included", True),
    ColumnSpec("num_active_params", "integer", "parameters", "parameters that one token uses, of a mixture of experts"),
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
    ColumnSpec("d_ff", "integer", "", "inner width of the feed-forward layer; 0: there is none", zero=True),
    ColumnSpec("vocab_size", "integer", "", "rows of the embedding; empty: 50304"),
    ColumnSpec("n_kv_heads", "integer", "", "heads of keys and values of attention; empty: one for each head"),
    ColumnSpec("window", "integer", "tokens", "tokens that attention sees; empty or 0: all", zero=True),
    ColumnSpec("attention_every", "integer", "layers", "k: every k-th layer is attention; empty or 0: none", zero=True),
    ColumnSpec("attention_heads", "integer", "", "heads of these attention layers; empty: of width 128"),
    ColumnSpec(
        "tied_embeddings", "flag", "", "1 if embedding and unembedding share a matrix; empty: 0", False, 2, True
    ),
    ColumnSpec("qk_norm", "flag", "", "1 if attention normalizes queries and keys; empty: 0", False, 2, True),
    ColumnSpec("seed", "integer", "", "seed of the run; it distinguishes repeated runs", zero=True),
    ColumnSpec("batch_size_seqs", "integer", "sequences", "sequences per optimizer step"),
    ColumnSpec("train_steps", "integer", "steps", "optimizer steps"),
    ColumnSpec("learning_rate", "number", "", "peak learning rate"),
    ColumnSpec("train_loss", "number", "nats per token", "training cross-entropy at the end", upper=MAX_LOSS),
    ColumnSpec("multiplicity_in_published_fits", "integer", "", "times the run was counted in the published fits"),
    ColumnSpec("source", "text", "", "how the loss was obtained"),
    ColumnSpec("run", "text", "", "name of the run in logs and curves"),
    ColumnSpec("loss_floor", "number", "nats per token", "lowest loss that the corpus allows", upper=MAX_LOSS),
    ColumnSpec("derived", "text", "", "columns of the row that were computed at import, and how"),
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
ROUNDED_COLUMNS: tuple[str, ...] = ("num_params", "num_active_params", "num_tokens")
"""Whole numbers that may be given as fractions, which are rounded with a note: they are read off plots, or derived."""
SHAPE_COLUMNS: tuple[str, ...] = ("d_model", "n_layers", "n_heads", "d_qk", "d_hv", "d_ff")
OPTIONAL_SHAPE_COLUMNS: tuple[str, ...] = (
    "vocab_size", "n_kv_heads", "window", "attention_every", "attention_heads", "tied_embeddings", "qk_norm",
)  # fmt: skip
"""Shapes with a default, which every count uses where a table has them."""


# ---- the schema ----------------------------------------------------------------------------------


def fraction_fault(name: str, value: float) -> str:
    """What is wrong with a number with a fractional part in a column of whole numbers; empty if it may be rounded."""
    if name not in ROUNDED_COLUMNS:
        return "is not a whole number"
    if abs(value) < _MIN_ROUNDED:
        return "is not a whole number; write all digits, not millions or billions"
    return ""


def _column(spec: ColumnSpec) -> pa.Column:
    checks = []
    if spec.kind != "text":
        checks.append(
            pa.Check.ge(0, error="must not be negative") if spec.zero else pa.Check.gt(0, error="must be positive")
        )
        checks.append(pa.Check(np.isfinite, error="must be finite"))
    if spec.kind in ("integer", "flag") and not spec.required:
        checks.append(pa.Check(lambda values: values == np.rint(values), error="is not a whole number"))
    if spec.upper is not None:
        words = "; a perplexity? write its logarithm, nats per token" if spec.upper == MAX_LOSS else ""
        checks.append(pa.Check.lt(spec.upper, error=f"must be below {spec.upper:g}{words}"))
    dtype = "int64" if spec.required and spec.kind == "integer" else None
    unit = f" [{spec.unit}]" if spec.unit else ""
    return pa.Column(dtype, checks, nullable=not spec.required, required=spec.required, description=spec.meaning + unit)


RUN_SCHEMA: pa.DataFrameSchema = pa.DataFrameSchema(
    {name: _column(spec) for name, spec in COLUMNS.items()}, name="run table"
)
"""Columns, types and ranges of a run table. `check_runs` adds the checks that need more than one column."""


def check_runs(frame: pd.DataFrame, source: str = "the run table") -> pd.DataFrame:
    """Check a table that is in memory: columns, types and ranges, then what ties columns together.

    Those are: train_flops within `FLOPS_RATIO` of 6 N D, where N is num_active_params if it is known; num_tokens equal
    to batch_size_seqs * context_length * train_steps where all are known; no row equal to another in every column
    (repeated seeds differ in their loss and are fine). Two things are warned of (`RunTableWarning`): fractions in
    `ROUNDED_COLUMNS`, and train_flops that are 6 N D wrapped in 64-bit integers.

    Parameters
    ----------
    frame
        a run table; its index must be unique and names the rows in messages.

    Returns
    -------
    `frame` itself; if numbers had to be rounded or turned into integers, a copy with them.

    Raises
    ------
    InputError
        for the first row that fails, with `source`, row, column and value.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> len(check_runs(load_paper_runs()))
    640
    """
    checked, notes = check_with_notes(frame, source)
    for note in notes:
        warnings.warn(RunTableWarning(f"{source}: {note}"), stacklevel=2)
    return checked


def check_with_notes(frame: pd.DataFrame, source: str) -> tuple[pd.DataFrame, list[str]]:
    """`check_runs` that returns its warnings, without `source`, instead of raising them."""
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()][0]
        raise InputError(
            f"{source}: row {quoted(twice)}: the index names more than one row; use reset_index(drop=True)"
        )
    _refuse_text(frame, source)
    frame, notes = _with_whole_counts(frame, source)
    try:
        RUN_SCHEMA.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise InputError(_first_failure(frame, error, source)) from None
    wrapped = _wrapped_flops(frame)
    at, message = _first_bad_row(frame, wrapped)
    if at is not None:
        raise InputError(f"{source}: row {frame.index[at]}, {message}")
    return frame, notes + ([overflow_message(frame, wrapped)] if wrapped.positions.size else [])


def _refuse_text(frame: pd.DataFrame, source: str) -> None:
    for name in frame.columns.intersection(list(COLUMNS)):
        column = frame[name]
        if COLUMNS[name].kind == "text" or pd.api.types.is_numeric_dtype(column):
            continue
        wrong = np.array([pd.notna(value) and not isinstance(value, Real) for value in column], dtype=bool)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"{source}: row {frame.index[at]}, column {name!r}: {quoted(column.iloc[at])} is not a number"
            )


def _with_whole_counts(frame: pd.DataFrame, source: str) -> tuple[pd.DataFrame, list[str]]:
    """The frame with int64 in `ROUNDED_COLUMNS`, and notes on what was rounded. Bad values stay, for the schema."""
    changed: dict[str, Any] = {}
    notes = []
    for name in (name for name in ROUNDED_COLUMNS if name in frame.columns and frame[name].dtype != np.int64):
        values = frame[name].to_numpy(np.float64, na_value=np.nan)
        known = np.isfinite(values)
        fractions = np.flatnonzero(np.abs(np.where(known, values, 0) - np.where(known, np.rint(values), 0)) > 1e-6)
        for at in fractions.tolist():
            if problem := fraction_fault(name, float(values[at])):
                raise InputError(f"{source}: row {frame.index[at]}, column {name!r}: {quoted(values[at])} {problem}")
        if fractions.size:
            rows = name_rows(frame.index[fractions].tolist())
            first = quoted(values[fractions[0]])
            notes.append(f"column {name!r}: {plural(fractions.size, 'fraction')} rounded, {rows} (first {first})")
        if known.all() and (np.abs(values) < 2.0**63).all():
            whole = frame[name].astype(np.int64) if pd.api.types.is_integer_dtype(frame[name]) else np.rint(values)
            changed[name] = np.asarray(whole).astype(np.int64)
        elif fractions.size:
            changed[name] = np.rint(values)
    return (frame.assign(**changed) if changed else frame), notes


# ---- what ties columns together -------------------------------------------------------------------


def flops_ratio(frame: pd.DataFrame) -> pd.Series:
    """train_flops / (6 N D) of every run; N is num_active_params where it is known, else num_params."""
    return frame["train_flops"] / (6.0 * used_params(frame) * frame["num_tokens"].astype(float))


def used_params(frame: pd.DataFrame) -> pd.Series:
    """Parameters that one token uses, float64: num_active_params where it is known, else num_params."""
    params = frame["num_params"].astype(float)
    if "num_active_params" in frame.columns:
        params = frame["num_active_params"].astype(float).fillna(params)
    return params


def overflow_message(frame: pd.DataFrame, wrapped: Wrapped | None = None) -> str:
    """One line on train_flops that are 6 N D wrapped: which rows, and the right value of the first; empty if none."""
    wrapped = _wrapped_flops(frame) if wrapped is None else wrapped
    if not wrapped.positions.size:
        return ""
    rows = frame.index[wrapped.positions].tolist()
    given, right, bits = frame["train_flops"].iloc[wrapped.positions[0]], wrapped.right[0], wrapped.bits[0]
    return (
        f"column 'train_flops': {plural(len(rows), 'value')} overflowed {bits}-bit integers, {name_rows(rows)}: "
        f"row {rows[0]} has {given:.7g}, 6 N D is {right:.7g}; compute 6.0 * N * D in floating point"
    )


def _wrapped_flops(frame: pd.DataFrame) -> Wrapped:
    return wrapped_flops(frame["num_params"], frame["num_tokens"], frame["train_flops"])


def _token_factors(frame: pd.DataFrame) -> NDArray[np.float64] | None:
    """batch_size_seqs, context_length and train_steps (3, n) in float64, or None where the table lacks one."""
    factors = ["batch_size_seqs", "context_length", "train_steps"]
    if not set(factors) <= set(frame.columns):
        return None
    return frame[factors].to_numpy(np.float64, na_value=np.nan).T


def _first_bad_row(frame: pd.DataFrame, wrapped: Wrapped) -> tuple[int | None, str]:
    """Position of the first row whose columns contradict each other, and how; None if there is none."""
    ratio = flops_ratio(frame).to_numpy(np.float64)
    if (bad := ~((ratio >= FLOPS_RATIO[0]) & (ratio <= FLOPS_RATIO[1]))).any():
        at = int(np.argmax(bad))
        return at, f"column 'train_flops': {_flops_problem(frame, at, ratio[at], wrapped)}"
    if (factors := _token_factors(frame)) is not None:
        product, tokens = factors.prod(axis=0), frame["num_tokens"].to_numpy(np.float64)
        if (bad := ~np.isnan(product) & (product != tokens)).any():
            at = int(np.argmax(bad))
            found = wrapped_products(tokens[[at]], factors[:, [at]]).row(0)
            how = f" ({found[1]}-bit integers overflowed)" if found else ""
            return at, (
                f"column 'num_tokens': {quoted(frame['num_tokens'].iloc[at])} is not "
                f"batch_size_seqs * context_length * train_steps = {product[at]:.15g}{how}"
            )
    likely = frame.duplicated(["num_params", "num_tokens", "val_loss"], keep=False).to_numpy(bool)
    if likely.any():
        same = frame[likely]
        if (twice := same.duplicated().to_numpy(bool)).any():
            at = int(np.flatnonzero(likely)[np.argmax(twice)])
            groups = same.groupby(list(frame.columns), dropna=False, sort=False).ngroup().to_numpy()
            first = same.index[int(np.argmax(groups == groups[np.argmax(twice)]))]
            return at, (
                f"every column: the same as row {first}; "
                "remove one, or distinguish repeated runs by a column such as seed"
            )
    return None, ""


def _flops_problem(frame: pd.DataFrame, at: int, ratio: float, wrapped: Wrapped) -> str:
    value, (low, high) = quoted(frame["train_flops"].iloc[at]), FLOPS_RATIO
    if found := wrapped.row(at):
        return f"{value} is 6 N D overflowed in {found[1]}-bit integers; the right value is {found[0]:.7g}"
    experts = "; a mixture of experts needs num_active_params" if 1e-4 < ratio < low else ""
    return (
        f"{value} is {ratio:.3g} times 6 N D, outside {low:g} to {high:g}: "
        f"a unit has slipped in train_flops, num_params or num_tokens{experts}"
    )


def _first_failure(frame: pd.DataFrame, error: pa.errors.SchemaErrors, source: str) -> str:
    cases = error.failure_cases
    whole = cases[cases["index"].isna()]
    if len(whole) and (whole["check"] == "column_in_dataframe").any():
        missing = whole.loc[whole["check"] == "column_in_dataframe", "failure_case"].iloc[0]
        return f"{source}: column {quoted(missing)} is missing"
    if len(whole) == len(cases):  # a column of another type, without a row that explains it
        case = whole.iloc[0]
        return (
            f"{source}: column {quoted(case['column'])}: {quoted(case['failure_case'])} fails {quoted(case['check'])}"
        )
    cases = cases[cases["index"].notna()]
    row = cases["index"].min()
    here = cases[cases["index"] == row]
    order = {name: place for place, name in enumerate(frame.columns)}
    case = min((case for _, case in here.iterrows()), key=lambda case: order[case["column"]])
    name, check = case["column"], str(case["check"])
    if check == "not_nullable":
        return f"{source}: row {row}, column {name!r}: has no value"
    value = frame.loc[row, name]
    text = f"{quoted(value)} {check if ' ' in check else 'fails ' + check}"
    if found := _wrapped_at(frame, name, frame.index.get_loc(row)):
        text += f": the product overflowed {found[1]}-bit integers, the right value is {found[0]:.7g}"
    return f"{source}: row {row}, column {name!r}: {text}"


def _wrapped_at(frame: pd.DataFrame, name: str, at: Any) -> tuple[float, int] | None:
    """Right value and bits if a cell that fails the schema is a wrapped product."""
    line = frame.iloc[[at]]
    if name == "num_tokens" and (factors := _token_factors(line)) is not None:
        return wrapped_products(line[name], factors).row(0)
    counts = line[["num_params", "num_tokens"]].to_numpy(np.float64)
    if name == "train_flops" and np.isfinite(counts).all() and (counts > 0).all():
        return _wrapped_flops(line).row(0)
    return None
