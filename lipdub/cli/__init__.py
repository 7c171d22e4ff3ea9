"""The command line. Nothing in here imports torch, OpenCV, PyAV or librosa before a command runs."""
