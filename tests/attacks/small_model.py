"""Saves a small model that was trained on digits: what attacks on `tfnas compress` compress."""

import sys

import keras

import tfnas


def save(path):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Rescaling(1 / 16),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    split = tfnas.data.load("digits")
    model.fit(split.x_train, split.y_train, epochs=5, batch_size=32, verbose=0)
    model.save(path)


if __name__ == "__main__":
    save(sys.argv[1])
