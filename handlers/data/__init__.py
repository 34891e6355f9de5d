"""Handlers of the data of a run."""

from leyden.handlers.data.combined_loader import CombinedLoader
from leyden.handlers.data.device_transfer import DeviceTransfer
from leyden.handlers.data.dry_run import DryRun
from leyden.handlers.data.generators import seed_everything
from leyden.handlers.data.limit_batches import LimitBatches
from leyden.handlers.data.overfit import Overfit
from leyden.handlers.data.reproducible import Reproducible

__all__ = ["CombinedLoader", "DeviceTransfer", "DryRun", "LimitBatches", "Overfit", "Reproducible", "seed_everything"]
