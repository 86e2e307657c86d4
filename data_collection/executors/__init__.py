"""Where searches run: in this process, or as actors of a Ray cluster."""

from data_collection.executors.base import ClusterFailure, Executor, Searches
from data_collection.executors.local import LocalExecutor
from data_collection.executors.ray import RayExecutor

__all__ = ["ClusterFailure", "Executor", "LocalExecutor", "RayExecutor", "Searches"]
