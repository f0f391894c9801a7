"""The laboratory: hidden law, budget, ledger, committed prediction, score. Needs no torch and no network.

One that trains real models instead of simulating them needs torch, and loads it when it is first used.
"""

from companion.study.laboratory.asks import Ask, ask_from
from companion.study.laboratory.backend import Backend, Cautious, Cost, Outcome, Referee, Regret, Simulator
from companion.study.laboratory.folder import new_laboratory, open_laboratory
from companion.study.laboratory.game import Laboratory, practice_laboratory
from companion.study.laboratory.predictions import Prediction, tokens_within
from companion.study.laboratory.rules import Rules
from companion.study.laboratory.scoring import Score, interval_score, score
from companion.study.laboratory.state import Answer, State
from companion.study.laboratory.training import Trainer
from companion.study.laboratory.training_rules import TrainingRules
from companion.study.laboratory.training_setup import training_rules
from companion.study.laboratory.world import World

__all__ = [
    "Answer",
    "Ask",
    "Backend",
    "Cautious",
    "Cost",
    "Laboratory",
    "Outcome",
    "Prediction",
    "Referee",
    "Regret",
    "Rules",
    "Score",
    "Simulator",
    "State",
    "Trainer",
    "TrainingRules",
    "World",
    "ask_from",
    "interval_score",
    "new_laboratory",
    "open_laboratory",
    "practice_laboratory",
    "score",
    "tokens_within",
    "training_rules",
]
