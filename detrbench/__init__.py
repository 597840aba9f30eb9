"""detrbench: one benchmark and ablation suite for efficient DETR detectors.

`detrbench.models` holds the detectors; everything else runs, measures, keeps and shows them.
Importing this package never imports torch.
"""

__version__ = "0.1.0"
