"""Makes `tf1`, `tf2` and `saved_model` beside it: checkpoints that TensorFlow wrote.

    python tests/formats/data/make_tf_checkpoint.py        # tensorflow 2.21; the files are committed, it is too heavy for CI

Each variable holds 0, 1, 2, … in row-major order, so that a test can say what it should be.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent


def numbers(shape: tuple[int, ...], dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.reshape(tf.range(int(np.prod(shape)), dtype=tf.float32), shape), dtype)


def tf1() -> None:
    """Saver: partitioned variables (slices), a text, every dtype; two shards of data."""
    shutil.rmtree(HERE / "tf1", ignore_errors=True)
    v1 = tf.compat.v1
    devices = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), v1.Session(config=devices) as session:
        for partitions, name in ((3, "embedding"), (2, "wide")):
            axis = 0 if name == "embedding" else 1
            with v1.variable_scope(name, partitioner=tf.compat.v1.fixed_size_partitioner(partitions, axis=axis)):
                v1.get_variable("weights", initializer=numbers((7, 4), tf.float32), use_resource=False)
        for dtype in (
            "float32",
            "float64",
            "float16",
            "bfloat16",
            "int8",
            "int32",
            "int64",
            "uint8",
            "bool",
            "complex64",
        ):
            v1.get_variable(f"layer/{dtype}", initializer=numbers((2, 3), tf.as_dtype(dtype)), use_resource=True)
        with tf.device("/cpu:1"):  # a device has a shard of its own
            v1.get_variable("scalar", initializer=tf.constant(2.5), use_resource=True)
            v1.get_variable("other/kernel", initializer=numbers((3, 5), tf.float32), use_resource=True)
        v1.get_variable("text", initializer=tf.constant(["one", "two"]), use_resource=False)
        v1.get_variable("empty", initializer=tf.zeros((0, 3)), use_resource=True)
        session.run(v1.global_variables_initializer())
        (HERE / "tf1").mkdir()
        saver = v1.train.Saver(sharded=True, save_relative_paths=True)
        saver.save(session, str(HERE / "tf1" / "model.ckpt"), global_step=7, write_meta_graph=False)


def tf2() -> None:
    """Checkpoint: object graph, optimiser slots, keys with `/.ATTRIBUTES/VARIABLE_VALUE`."""
    shutil.rmtree(HERE / "tf2", ignore_errors=True)

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(numbers((3, 4), tf.float32))
            self.layers = [tf.Variable(numbers((5,), tf.bfloat16)), tf.Variable(numbers((2, 2), tf.float32))]

    model = Model()
    saved = tf.train.Checkpoint(model=model, step=tf.Variable(7, dtype=tf.int64))
    tf.train.CheckpointManager(saved, str(HERE / "tf2"), max_to_keep=2).save()
    shutil.rmtree(HERE / "saved_model", ignore_errors=True)
    tf.saved_model.save(model, str(HERE / "saved_model"))
    (HERE / "saved_model" / "fingerprint.pb").unlink()
    (HERE / "saved_model" / "saved_model.pb").write_bytes(b"the graph, which is not read")
    for empty in ("assets", "variables/variables.data-00000-of-00001.tempstate"):
        if (HERE / "saved_model" / empty).is_dir():
            (HERE / "saved_model" / empty).rmdir()


if __name__ == "__main__":
    tf1()
    tf2()
