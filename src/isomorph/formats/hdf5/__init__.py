"""HDF5, which Keras writes: its structure is followed here, packed chunks are left to h5py in a process of its own."""
