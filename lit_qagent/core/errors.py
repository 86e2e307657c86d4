"""Every error a user can cause or meet, one class per boundary, under one base.

A message names the subject, the value, what was expected and the remedy. A failed branch of a
search is data (it is recorded and counted), never a crash.
"""


class QAgentError(Exception):
    """Base of all errors of this project; the command line prints it without a traceback."""


class ConfigError(QAgentError):
    """A configuration that cannot work: a value out of range, two settings that contradict."""


class MissingPackage(QAgentError):
    """An optional package or program (an extra, Java) is not installed."""


class ModelError(QAgentError):
    """A model or tokenizer that cannot be found, read or used."""


class DataError(QAgentError):
    """A data file that is missing, empty, corrupt or of another schema."""


class StoreError(QAgentError):
    """A tree store or results folder that is damaged or was made with other settings."""


class EnvironmentFailure(QAgentError):
    """A world that broke; an illegal action is an observation instead, never this error."""


class PolicyFailure(QAgentError):
    """A policy that gave no answer after its retries."""


class ContextOverflow(PolicyFailure):
    """A prompt longer than the policy's context; the caller drops the oldest step and retries."""


class CheckpointError(QAgentError):
    """A checkpoint that is incomplete or does not fit the model or the program."""


class TrainingFailure(QAgentError):
    """Training that cannot go on: numbers that are none, or no memory left."""


class OverlapError(QAgentError):
    """Tasks that were trained on appear among the held-out tasks."""
