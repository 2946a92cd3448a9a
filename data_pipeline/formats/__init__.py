"""Readers of the field's file formats; each turns a file into millimetres in the camera frame."""
