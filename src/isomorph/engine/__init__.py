"""Plan + Checkpoint -> arrays, or a finished file.

Plan.moves ──pieces──▶ runs of target bytes, in increasing order ──copy or kernels──▶ buffers ──run──▶ target file
Plan.checks ──checks──▶ nothing, or a CheckError with every tensor that does not hold
"""
