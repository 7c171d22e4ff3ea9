"""From footage to weights: data sets, and the training of every network.

prepare -> store            footage -> aligned clips on disc, split by speaker
data                        clips -> batches
expert, generator, faces    a stage each: its networks, losses and what its checkpoint holds
run                         the run folder, and the one loop that trains any stage
stages                      what `lipdub train` calls
export                      checkpoint -> weights that ship
"""
