"""What all rooms share: checks of what users pass in, random numbers, samplers, progress, checkpoints, results."""
