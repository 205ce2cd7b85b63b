"""Knowledge distillation: a small model learns from a large one.

:class:`~tfnas.distillation.distiller.Distiller` is a Keras model around the student, trained by
the ordinary `fit`; the result is `distiller.student`.

    tensor_types.py          types of tensors and losses, for annotations
    output_checks.py         checks of single arguments
    losses.py                cross-entropy and KL divergence, as pure functions
    batch_checks.py          whether labels and a teacher's outputs fit a batch
    feature_distances.py     distances between intermediate activations, as pure functions
    attention_taps.py        the probabilities of attention layers, and where they are read
    feature_losses.py        which layers are compared, and how
    attention_maps.py        which attention layers of student and teacher are compared
    output_structure.py      a model's outputs by name: one, a list or a dictionary
    output_kinds.py          what an output means, and what says so
    output_losses.py         the losses of one output
    forward.py               one forward pass: outputs, logits and intermediate activations
    teachers.py              frozen teacher models and the average of their outputs
    compatibility_checks.py  whether models and layers fit together
    output_inference.py      how each output is trained, from arguments, losses and activations
    target_checks.py         targets and weights, checked and split by output
    training_objective.py    the loss of a batch
    loss_trackers.py         the parts of the loss in the history
    fit_checks.py            arguments of `fit`, checked before the training
    distiller.py             the Keras model that trains the student
    cached_teacher.py        a teacher's outputs, computed once and stored on disk
"""
