"""Measurements of speed, and the records they leave: JSON lines with the machine they ran on."""
