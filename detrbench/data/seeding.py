"""Seeds that depend on what they are for, and on nothing else: not on the platform, the order or the process."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 64-bit seed from names and numbers, for example `derive_seed("augment", seed, epoch, index)`.

    A hash, so that neighbouring arguments give unrelated streams; Python's own `hash` differs between processes.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
