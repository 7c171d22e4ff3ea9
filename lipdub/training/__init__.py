"""Training of every network.

data, facedata, loader      clips -> batches, made ahead of the step
expert, generator, ...      a stage each: its networks, losses and what its checkpoint holds
engine, loop                how a step is computed, on whatever there is; the one loop that trains any stage
run                         the run folder
stages, plan                what `lipdub train` does, or would do
"""
