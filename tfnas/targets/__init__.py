"""Devices: microcontrollers, accelerators, phones."""
