"""Released weights by name: what there is, where it lies on this machine, how it comes here. Imports no torch."""
