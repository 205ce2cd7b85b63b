"""The files of a weight-sharing search, in a folder beside those of its trials.

supernet/shared_weights.npz     the shared weights and the optimizer, after each epoch
supernet/scores.jsonl           a line for each network that was scored
supernet/finalist_KEY.npz       the weights of a finalist
supernet/trained_alone.jsonl    accuracies of networks that were trained alone, to compare with
"""

FOLDER = "supernet"
SHARED_WEIGHTS, SCORES, ALONE = "shared_weights.npz", "scores.jsonl", "trained_alone.jsonl"
FINALIST = "finalist_{}.npz"  # with the key of the architecture
