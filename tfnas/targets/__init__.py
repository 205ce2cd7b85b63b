"""Target devices: microcontrollers, accelerators and phones."""
