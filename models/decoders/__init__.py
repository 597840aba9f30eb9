"""Decoders: (queries, memory, tokens, heads) -> `Decoded`."""
