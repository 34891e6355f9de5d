"""What is tied to one outside project: loggers of hosted services, adapters to other trainers and launchers.

Each module here serves one such project and imports it only when its handler is made.
"""

from leyden.contrib.lora import LoRA

__all__ = ["LoRA"]
