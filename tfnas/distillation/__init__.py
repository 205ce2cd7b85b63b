"""Knowledge distillation: a small model learns from a large one.

:class:`~tfnas.distillation.distiller.Distiller` is a Keras model around the student, trained by
the ordinary `fit`; `distiller.student` is what is kept.

    checks.py     rules of single arguments
    losses.py     cross-entropy and divergence, pure
    features.py   distances between inner activations, pure
    transfers.py  which layers are compared, and how
    reading.py    one forward pass that also gives logits and inner activations
    teachers.py   frozen models, averaged
    distiller.py  the Keras model that trains
    matching.py   whether models, layers, labels go together
    outputs.py    a teacher's outputs, computed once and kept on disk
"""
