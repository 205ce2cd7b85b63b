"""From a Keras model to a checked `.tflite` file."""
