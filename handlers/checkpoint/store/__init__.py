"""Where checkpoints lie: paths and URLs, one run to a directory, what comes and goes at once, which of them stay."""
