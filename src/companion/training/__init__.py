"""What training really cost: logs of training runs, their throughput, GPU-hours, batches and curves."""

from companion.training.logs import last_attempt, load_training_curves, load_training_logs
from companion.training.throughput import finished, utilization_by_size, with_throughput

__all__ = [
    "finished",
    "last_attempt",
    "load_training_curves",
    "load_training_logs",
    "utilization_by_size",
    "with_throughput",
]
