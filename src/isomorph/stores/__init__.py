"""Object stores: a URL -> its bytes by ranges, and bytes in increasing order -> an object. Knows nothing of checkpoints.

url     `s3://bucket/key` as a path: name, suffix, parent, what lies beside it
base    what a store does; s3, gcs, hub and web do it
blocks  ranges that were read, kept a while, and the next ones fetched ahead
parts   which parts of an upload pass through this machine, and which the store copies itself
"""
