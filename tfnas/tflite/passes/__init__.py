"""The passes of a conversion, one file each; :mod:`tfnas.tflite.convert` has them in a row."""
