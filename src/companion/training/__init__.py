"""What training really cost: logs of training runs, their throughput, GPU-hours, batches and curves."""

from companion.training.fronts import (
    cost_factors,
    decomposition,
    front_bands,
    gpu_hours_at_loss,
    law_fronts,
    run_fronts,
)
from companion.training.logs import last_attempt, load_training_curves, load_training_logs
from companion.training.throughput import finished, utilization_by_size, with_throughput

__all__ = [
    "cost_factors",
    "decomposition",
    "finished",
    "front_bands",
    "gpu_hours_at_loss",
    "last_attempt",
    "law_fronts",
    "load_training_curves",
    "load_training_logs",
    "run_fronts",
    "utilization_by_size",
    "with_throughput",
]
