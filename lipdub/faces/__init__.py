"""Faces: finding, following, cropping and choosing them, and blending new mouths in."""
