"""The files of a checkpoint: data as JSON and tensors, shards, the manifest, and the checks of what is read."""
