"""What judges the networks: teachers to compare with, that are never shipped."""
