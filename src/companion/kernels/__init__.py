"""Operators in torch and Triton, a folder each: so far the cell of the mLSTM. Needs torch (extra `kernels`).

`companion.kernels.mlstm` is the function; its modules are in the folder of the same name, and are imported from there:
`from companion.kernels.mlstm.oracle import mlstm_oracle`.
"""

from companion.errors import InputError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise InputError(
        f"companion.kernels needs torch (extra 'kernels': pip install -e '.[kernels]' -c constraints.txt): {error}"
    ) from error

from companion.kernels.mlstm.api import mlstm, mlstm_step
from companion.kernels.mlstm.state import MLSTMState

__all__ = ["MLSTMState", "mlstm", "mlstm_step"]
