"""The same file in operators that TFLite's GPU delegate takes."""
