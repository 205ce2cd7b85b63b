"""Knowledge distillation: a small model learns from a large one.

:class:`~tfnas.distillation.distiller.Distiller` is a Keras model around the student, trained by
the ordinary `fit`; the result is `distiller.student`.

    output_checks.py         checks of single arguments
    losses.py                cross-entropy and KL divergence, as pure functions
    feature_distances.py     distances between intermediate activations, as pure functions
    feature_losses.py        which layers are compared, and how
    forward.py               one forward pass: outputs, logits and intermediate activations
    teachers.py              frozen teacher models and the average of their outputs
    distiller.py             the Keras model that trains the student
    compatibility_checks.py  whether models, layers and labels fit together
    cached_teacher.py        a teacher's logits, computed once and stored on disk
"""
