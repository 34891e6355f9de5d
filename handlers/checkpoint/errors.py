"""What can be wrong with a checkpoint on disk."""


class CheckpointDamagedError(ValueError):
    """A checkpoint is not whole: a file is missing, cut short or altered, or can't be read. The message names it."""


class CheckpointTooNewError(ValueError):
    """A checkpoint is whole, but a later leyden wrote it, in a layout that this one does not know."""
