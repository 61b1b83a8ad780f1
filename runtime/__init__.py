"""Running variants: devices, sessions, inputs and clocks."""
