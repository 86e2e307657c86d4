"""Losses, metrics and the LightningModule of step-level DPO."""
