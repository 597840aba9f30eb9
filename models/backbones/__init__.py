"""Backbones: images in, a list of feature levels out; `channels` says how wide each level is."""
