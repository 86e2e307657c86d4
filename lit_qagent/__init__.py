"""Step-level Q-value models that make LLM agents decide better."""

import os

__version__ = "0.1.0"

# OpenMP's threads wait by spinning unless told otherwise, before torch is imported. With an engine
# and anything else on the same cores that made generation several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
