"""Knowledge distillation: a small model learns from a large one.

:class:`~tfnas.distillation.distiller.Distiller` is a Keras model around the student, trained by
the ordinary `fit`; `distiller.student` is what is kept.

    output_checks.py         rules of single arguments
    losses.py                cross-entropy and divergence, pure
    feature_distances.py     distances between inner activations, pure
    feature_losses.py        which layers are compared, and how
    forward.py               one forward pass that also gives logits and inner activations
    teachers.py              frozen models, averaged
    distiller.py             the Keras model that trains
    compatibility_checks.py  whether models, layers, labels go together
    cached_teacher.py        a teacher's outputs, computed once and kept on disk
"""
