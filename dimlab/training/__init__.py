"""The training wing: images in, a checkpoint out. It imports no probe."""
