"""What runs in another interpreter: builds a detector there, counts, times and runs it, and answers on a pipe.

Nothing here imports anything but the standard library, PyTorch, and what builds the detector: the other interpreter has
a PyTorch of its own and no detrbench. `external/interpreter.py` starts it and asks; what times a forward and follows
its memory is here for both sides, so that a detector is measured alike wherever it runs.

    __main__.py    the process: its pipe, then the answers, until nobody asks any more
    messages.py    how both sides write and read
    answers.py     what can be asked
    detector.py    a detector in this interpreter, and each question about it
    building.py    how it comes about from a user's function
    clock.py       the time of a forward, by part too
    peak.py        the memory of a forward
    recorder.py    the operations of a forward, which the asker turns into work
    identity.py    versions and sources, without PyTorch
"""
