"""Parameters and FLOPs from shapes alone, per component, under several conventions."""

from companion.accounting.breakdown import COMPONENTS, Breakdown
from companion.accounting.conventions import CHINCHILLA, CONVENTIONS, PAPER, SIX_ND, TFLA, Convention, get_convention
from companion.accounting.flops import TrainingFlops, count_flops, train_flops
from companion.accounting.params import count_params, num_params

__all__ = [
    "CHINCHILLA",
    "COMPONENTS",
    "CONVENTIONS",
    "PAPER",
    "SIX_ND",
    "TFLA",
    "Breakdown",
    "Convention",
    "TrainingFlops",
    "count_flops",
    "count_params",
    "get_convention",
    "num_params",
    "train_flops",
]
