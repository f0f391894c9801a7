"""The explorer: every number of the book's page *Explorer* at one setting, and the data of its script."""

from companion.explorer.numbers import Explorer
from companion.explorer.settings import CONTROLS, OPTIMAL, Control, Setting, link_value
from companion.explorer.training import training_model

__all__ = ["CONTROLS", "OPTIMAL", "Control", "Explorer", "Setting", "link_value", "training_model"]
