"""The mLSTM cell: float64 oracle, plain-torch forms, Triton kernels behind one call. Needs torch (extra `kernels`)."""

from companion.errors import InputError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise InputError(
        f"companion.kernels needs torch (extra 'kernels': pip install -e '.[kernels]' -c constraints.txt): {error}"
    ) from error

from companion.kernels.api import mlstm, mlstm_step
from companion.kernels.state import MLSTMState

__all__ = ["MLSTMState", "mlstm", "mlstm_step"]
