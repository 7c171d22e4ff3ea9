"""Training of every network.

prepare, offset, store      footage -> aligned clips on disc, in sync, split by speaker
data, loader                clips -> batches, made ahead of the step
expert, generator, faces    a stage each: its networks, losses and what its checkpoint holds
engine, loop                how a step is computed, on whatever there is; the one loop that trains any stage
run, settings               the run folder
stages, plan                what `lipdub train` does, or would do
export                      checkpoint -> weights that ship
"""
