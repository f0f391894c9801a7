"""The laboratory: hidden law, budget, ledger, committed prediction, score. Needs no torch and no network."""

from companion.study.laboratory.asks import Ask, ask_from
from companion.study.laboratory.backend import Backend, Cost, Outcome, Referee, Regret, Simulator
from companion.study.laboratory.folder import Laboratory, new_laboratory, open_laboratory, practice_laboratory
from companion.study.laboratory.predictions import Prediction, tokens_within
from companion.study.laboratory.rules import Rules
from companion.study.laboratory.scoring import Score, interval_score, score
from companion.study.laboratory.state import Answer, State
from companion.study.laboratory.world import World

__all__ = [
    "Answer",
    "Ask",
    "Backend",
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
    "World",
    "ask_from",
    "interval_score",
    "new_laboratory",
    "open_laboratory",
    "practice_laboratory",
    "score",
    "tokens_within",
]
