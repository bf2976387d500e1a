"""The pure heart: what things are and what may follow what. No I/O, no clock, no randomness."""
