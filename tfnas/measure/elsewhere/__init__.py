"""Latency on other devices: over ssh, over adb, in a browser; all by one interface."""
