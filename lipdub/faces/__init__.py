"""Faces: detection, tracking, crops, references, blending."""
