"""Language models in torch, from the same architecture objects as the accounting. Needs torch (extra `kernels`).

`build` makes the model of an `Architecture`: a Transformer, an xLSTM, or a hybrid of both. `Memory` is what a model
keeps of the tokens it has read: keys and values, mLSTM states, or both.
"""

# torch's counter of products then knows our operators
import companion.kernels.flop_formulas  # noqa: F401
from companion.models.generation import CapturedStep, generate
from companion.models.memory import KeysValues, Memory
from companion.models.model import LanguageModel, build

__all__ = ["CapturedStep", "KeysValues", "LanguageModel", "Memory", "build", "generate"]
