"""What other tools wrote: their features and their checkpoints."""
