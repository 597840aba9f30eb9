"""Training: the recipe (torch-free), the optimiser, the loop with its checkpoints."""
