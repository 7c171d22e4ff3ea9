"""Data sets: reading of public corpora, preparation of footage, storage of clips."""
