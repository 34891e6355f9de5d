"""What can be wrong with a checkpoint on disk, or with the directory it is to lie in."""


class CheckpointDamagedError(ValueError):
    """A checkpoint is not whole: a file is missing, cut short or altered, or can't be read. The message names it."""


class CheckpointTooNewError(ValueError):
    """A checkpoint is whole, but a later leyden wrote it, in a layout that this one does not know."""


class DirectoryInUseError(RuntimeError):
    """Another run writes its checkpoints to the directory. The message names its process."""


class ScoreError(TypeError):
    """What checkpoints are ranked by is no number."""
