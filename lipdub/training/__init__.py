"""From footage to weights: data sets, and the training of every network.

prepare, offset, store      footage -> aligned clips on disc, in sync, split by speaker
data                        clips -> batches
expert, generator, faces    a stage each: its networks, losses and what its checkpoint holds
run, settings               the run folder, and the one loop that trains any stage
stages, plan                what `lipdub train` does, or would do
export                      checkpoint -> weights that ship
"""
