"""What the detectors are held against: the official models' figures, and small ones of our own."""
