"""What is measured: each module is a function from a detector to a record of `results/records.py`.

complexity.py   multiply-adds and parameters, by part           -> Complexity
scoring.py      COCO box AP of detections, with its interval    -> Accuracy  (torch-free)
latency.py      interleaved timings of several detectors        -> Latency
memory.py       peak of one forward and of one training step    -> Memory
dam.py          share of attention on kept tokens (Corr)        -> DamCorrelation
queries.py      how queries gather around objects               -> QueryGathering
pictures.py     what happens inside, on a few images            -> Pictures

inference.py    the detector over a data set, as it is measured
accuracy.py     what it detects there, under several protocols from one forward
detections.py   detections as columns, and the file they are kept in (torch-free)
diagnosis.py    what is usually wrong with predictions from elsewhere (torch-free)
matching.py     COCO's matching of detections to objects        (torch-free)
protocols/      the named, versioned rules that they follow     (torch-free)
inputs.py       image sizes of the complexity protocols         (torch-free)
rules.py        what an operation costs                         (torch-free)
counting.py     counts by name, each taken once             (torch-free)
counters.py     running a detector on shapes alone
repeats.py      what layers that repeat did, booked again
tally.py        the work of one forward, by what did it
other_counters.py  fvcore and torch's counter, as a check
operations.py   the work of each PyTorch operation
ap_interval.py  AP of resampled images without matching anew    (torch-free)
ap_images.py    what each image contributed to AP, as kept         (torch-free)
timing.py       rounds of one process, in each mode
machine.py      what the machine did while something was timed
"""
