"""Encoders: (tokens, proposal head) -> `Encoded`; a paper's file shows only what that paper changes."""
