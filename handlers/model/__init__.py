"""Handlers that change a model before it is trained, in place."""

from leyden.handlers.model.activation_checkpointing import ActivationCheckpointing
from leyden.handlers.model.channels_last import ChannelsLast
from leyden.handlers.model.compile import Compile
from leyden.handlers.model.finetune import Finetune
from leyden.handlers.model.freeze import Freeze
from leyden.handlers.model.plan import Unfreeze
from leyden.handlers.model.quantize import Quantize

__all__ = ["ActivationCheckpointing", "ChannelsLast", "Compile", "Finetune", "Freeze", "Quantize", "Unfreeze"]
