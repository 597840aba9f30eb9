"""Detectron2's names of a ResNet, which detrex keeps below a prefix."""

from __future__ import annotations

from detrbench.models.checkpoints.adapter import Rule


def resnet_rules(prefix: str) -> tuple[Rule, ...]:
    r"""Rules for a ResNet whose names begin with `prefix`, a regular expression without groups.

    `backbone\.` in detrex; nothing in the backbone's own file.
    """
    rules: list[Rule] = [
        (prefix + r"stem\.conv1\.weight", r"backbone.body.conv1.weight"),
        (prefix + r"stem\.conv1\.norm\.(.+)", r"backbone.body.bn1.\1"),
    ]
    # detectron2 counts the stages of a ResNet from 2, torchvision from 1.
    for stage in range(1, 5):
        theirs, ours = rf"{prefix}res{stage + 1}\.(\d+)\.", rf"backbone.body.layer{stage}.\1."
        rules += [
            (theirs + r"conv(\d)\.weight", ours + r"conv\2.weight"),
            (theirs + r"conv(\d)\.norm\.(.+)", ours + r"bn\2.\3"),
            (theirs + r"shortcut\.weight", ours + r"downsample.0.weight"),
            (theirs + r"shortcut\.norm\.(.+)", ours + r"downsample.1.\2"),
        ]
    return tuple(rules)
