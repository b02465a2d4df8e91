"""Conversions with something wrong or odd in them: outliers, noise, equal layers, other weights, values that repeat."""

from __future__ import annotations

import re

import numpy as np
from conversions import UNMADE, Array, Arrays, Conversion, Maker, cast, changed, full, is_numbers, unmade
from strange_decoders import FFN, HEAD, D, llama, renamed
from strange_towers import DIM, linear, norm, vit

TIMES = 8


def encoder(m: Maker, count: int = TIMES, wide: int = 4 * DIM) -> Arrays:
    """A BERT as transformers has it."""
    a: Arrays = {
        "embeddings.word_embeddings.weight": m.w(40, DIM),
        "embeddings.position_embeddings.weight": m.w(20, DIM),
    }
    norm(m, a, "embeddings.LayerNorm", DIM)
    for layer in range(count):
        at = f"encoder.layer.{layer}."
        for part in ("query", "key", "value"):
            linear(m, a, f"{at}attention.self.{part}", DIM, DIM)
        linear(m, a, f"{at}attention.output.dense", DIM, DIM)
        norm(m, a, f"{at}attention.output.LayerNorm", DIM)
        linear(m, a, f"{at}intermediate.dense", wide, DIM)
        linear(m, a, f"{at}output.dense", DIM, wide)
        norm(m, a, f"{at}output.LayerNorm", DIM)
    return a


def transposed(a: Arrays) -> Arrays:
    """Every matrix but the embeddings transposed, under the names of Paddle's encoder."""
    made = {name: array.T if array.ndim == 2 and "embeddings" not in name else array for name, array in a.items()}
    return renamed(
        made, ("encoder.layer", "encoder.layers"), ("attention.self.query", "self_attn.q_proj"), ("attention.self.key", "self_attn.k_proj"),
        ("attention.self.value", "self_attn.v_proj"), ("attention.output.dense", "self_attn.out_proj"), ("attention.output.LayerNorm", "norm1"),
        ("intermediate.dense", "linear1"), (r"(\d)\.output.dense", r"\1.linear2"), (r"output.LayerNorm", "norm2"), ("embeddings.LayerNorm", "embeddings.layer_norm"),
    )  # fmt: skip


def one_not_transposed(a: Arrays) -> Arrays:
    """A square matrix of layer 3 is as it was: a fault of the script that made the example."""
    made = transposed(a)
    name = "encoder.layers.3.self_attn.out_proj.weight"
    return {**made, name: made[name].T}


def swapped_in_one(a: Arrays) -> Arrays:
    """Keys and values are exchanged in layer 5."""
    made = transposed(a)
    k, v = ("encoder.layers.5.self_attn.k_proj.weight", "encoder.layers.5.self_attn.v_proj.weight")
    return {**made, k: made[v], v: made[k]}


def layers_exchanged(a: Arrays) -> Arrays:
    """Layers 2 and 6 are exchanged, both whole."""
    made = transposed(a)
    other = {"2": "6", "6": "2"}
    return {
        re.sub(r"layers\.(\d)", lambda found: f"layers.{other.get(found[1], found[1])}", name): array
        for name, array in made.items()
    }


def sorted_as_text(a: Arrays) -> Arrays:
    """Twelve layers in the order of their names as text: 0 1 10 11 2 …"""
    order = sorted(range(12), key=str)
    return {
        re.sub(r"layers\.(\d+)", lambda found: f"blocks.{order.index(int(found[1]))}", name): array
        for name, array in transposed(a).items()
    }


def noisy(a: Arrays) -> Arrays:
    """Adapters that the source never had, of shapes that it has."""
    made = transposed(a)
    like = made["embeddings.word_embeddings.weight"]
    for layer in range(TIMES):
        for seed, part in enumerate(("down", "up")):
            made[f"encoder.layers.{layer}.adapter.{part}.weight"] = unmade((DIM, DIM), like, seed=10 * layer + seed)
    made["pooler.dense.weight"] = unmade((DIM, DIM), like)
    return made


def with_optimizer(m: Maker) -> Arrays:
    """The weights, and two moments of each."""
    a = encoder(m)
    made: Arrays = {f"model.{name}": array for name, array in a.items()}
    for name, array in a.items():
        made[f"optimizer.exp_avg.{name}"] = m.w(*array.shape)
        made[f"optimizer.exp_avg_sq.{name}"] = m.positive(*array.shape)
    return made


def without_optimizer(a: Arrays) -> Arrays:
    """The weights alone."""
    return transposed({name.removeprefix("model."): array for name, array in a.items() if name.startswith("model.")})


def averaged(m: Maker) -> Arrays:
    """A student and its teacher, a little apart."""
    a: Arrays = {}
    for name, array in vit(m).items():
        a[f"student.{name}"] = array
        a[f"teacher.{name}"] = m.w(*array.shape) if is_numbers(array) else array * np.float32(1.001)
    return a


def teacher(a: Arrays) -> Arrays:
    """The teacher is kept."""
    return renamed({name: array for name, array in a.items() if "teacher" in name}, ("^teacher.", "backbone."))


def unrelated(a: Arrays) -> Arrays:
    """Another model altogether."""
    found = vit(Maker("trained", seed=77))
    return {name: unmade(array.shape, next(iter(a.values())), seed) for seed, (name, array) in enumerate(found.items())}


def fine_tuned(a: Arrays) -> Arrays:
    """The same names, every element a little off."""
    rng = np.random.default_rng(5)
    return {
        name: changed(array, lambda values: (values + 1e-3 * rng.standard_normal(values.shape)).astype(values.dtype))
        if not is_numbers(array)
        else np.full(array.shape, UNMADE, array.dtype)
        for name, array in transposed(a).items()
    }


def merged(m: Maker) -> Arrays:
    """A Llama with adapters of rank 2 beside its queries and values."""
    a = llama(m)
    for layer in range(3):
        for part, rows in (("q", 24), ("v", 8)):
            at = f"model.layers.{layer}.self_attn.{part}_proj"
            a[f"{at}.lora_A.weight"], a[f"{at}.lora_B.weight"] = m.w(2, D), m.w(rows, 2)
    return a


def lora_merged(a: Arrays) -> Arrays:
    """The adapters added in."""
    made: Arrays = {}
    for name, array in a.items():
        adapter = name.replace(".weight", ".lora_{}.weight")
        if adapter.format("A") in a:
            low, high = a[adapter.format("A")], a[adapter.format("B")]
            made[name] = np.full(array.shape, UNMADE, array.dtype) if is_numbers(array) else array + 2 * (high @ low)
        elif "lora" not in name:
            made[name] = array
    return renamed(made, ("^model.", "lm."))


def quantised(a: Arrays) -> Arrays:
    """Matrices as int8 with a scale a row; the rest as it was."""
    made: Arrays = {}
    for name, array in transposed(a).items():
        if array.ndim == 2:
            scale = full((array.shape[0],), 1, array) if is_numbers(array) else np.abs(array).max(1) / np.float32(127)
            q = full(array.shape, 0, array) if is_numbers(array) else np.round(array / scale[:, None]).astype(np.int8)
            made[name] = np.full(array.shape, UNMADE, array.dtype) if is_numbers(array) else q
            made[f"{name}_scale"] = np.full(scale.shape, UNMADE, array.dtype) if is_numbers(array) else scale
        else:
            made[name] = array
    return made


def equal_layers(m: Maker) -> Arrays:
    """Layers 4 and 5 hold the same weights (a model grown by doubling)."""
    a = encoder(m)
    return {name: a[name.replace("layer.5.", "layer.4.")] for name in a}


def longer(a: Arrays) -> Arrays:
    """Ten layers of eight: the last two are new."""
    made = transposed(a)
    like = made["embeddings.word_embeddings.weight"]
    for name in [name for name in made if "layers.7." in name]:
        for layer in (8, 9):
            new = name.replace("layers.7.", f"layers.{layer}.")
            made[new] = unmade(made[name].shape, like, seed=layer + 100 * len(made))
    return made


def shorter(a: Arrays) -> Arrays:
    """Every second layer of the teacher."""
    made: Arrays = {}
    for name, array in transposed(a).items():
        found = re.search(r"layers\.(\d)", name)
        if not found:
            made[name] = array
        elif int(found[1]) % 2 == 0:
            made[name.replace(found[0], f"layers.{int(found[1]) // 2}")] = array
    return made


def squares(m: Maker) -> Arrays:
    """Every tensor a matrix of one shape, names of no meaning."""
    return {f"layers.{layer}.{letter}": m.w(DIM, DIM) for layer in range(6) for letter in "abcdefgh"}


def squares_turned(a: Arrays) -> Arrays:
    """Half of them transposed."""
    return {
        re.sub(r"layers\.(\d)\.(\w)", lambda f: f"net.{f[1]}.{'stuvwxyz'['abcdefgh'.index(f[2])]}", name): array.T if name[-1] in "bdg" else array
        for name, array in a.items()
    }  # fmt: skip


def coarse(m: Maker) -> Arrays:
    """Weights of few distinct values, as f16 and int buffers have them."""
    a: Arrays = {}
    for name, array in encoder(m, 4).items():
        a[name] = changed(array, lambda values: (np.round(values * 40) / 8).astype(np.float16))
    return a


def hostile(m: Maker) -> Arrays:
    """NaN, infinities, minus zero, empty tensors, scalars; names with dots, blanks, brackets."""
    a = encoder(m, 2)
    query = "encoder.layer.0.attention.self.query.weight"
    if not is_numbers(a[query]):
        a[query] = a[query].copy()
        a[query][0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    a["empty"], a["scalar"], a["step count"] = m.w(0, 4), m.w(), m.given(np.array(7, np.int64))
    a["w[0], {x}"], a["drop"], a["mask"] = m.w(3, 5), m.b(4), m.given(np.array([True, False, True]))
    return a


def hostile_kept(a: Arrays) -> Arrays:
    """The same tensors, matrices transposed, under other names."""
    made = transposed(a)
    return {
        {"w[0], {x}": 'a "quoted" name', "drop": "where", "step count": "steps", "scalar": "logit_scale"}.get(
            name, name
        ): array
        for name, array in made.items()
    }


def conflicting(a: Arrays) -> Arrays:
    """Names that promise another order than the values have: first and second norms exchanged throughout."""
    return renamed(transposed(a), ("norm1", "norm_x"), ("norm2", "norm1"), ("norm_x", "norm2"))


def rows_only(a: Arrays) -> Arrays:
    """A slice of the vocabulary (the first 30 rows), the middle of the positions, and a half of each first matrix."""
    made = transposed(a)
    made["embeddings.word_embeddings.weight"] = made["embeddings.word_embeddings.weight"][:30]
    made["embeddings.position_embeddings.weight"] = made["embeddings.position_embeddings.weight"][5:15]
    return made


def double_heads(a: Arrays) -> Arrays:
    """Keys and values of grouped queries repeated for every head, as engines without groups want them."""

    def repeated(array: Array) -> Array:
        return np.repeat(array.reshape(2, HEAD, D), 3, axis=0).reshape(-1, D)

    return {
        name: repeated(array) if re.search("[kv]_proj", name) else array
        for name, array in renamed(a, ("^model.", "")).items()
    }


def half_precision(a: Arrays) -> Arrays:
    """Half precision throughout: f16 for matrices, which rounds; biases and norms stay."""
    return {name: cast(array, np.float16) if array.ndim == 2 else array for name, array in transposed(a).items()}


def gate_first(a: Arrays) -> Arrays:
    """Up before gate, fused and transposed; half of the layers' matrices are square."""
    made: Arrays = {}
    for name, array in a.items():
        if "gate_proj" in name:
            made[name.replace("gate_proj.weight", "w13")] = np.concatenate([a[name.replace("gate", "up")], array]).T
        elif "up_proj" not in name:
            made[name] = array.T if "proj" in name else array
    assert all(array.shape[-1] in (2 * FFN, array.shape[-1]) for array in made.values())
    return made


FAULTS = (
    Conversion("every matrix transposed", encoder, transposed),
    Conversion("one not transposed", encoder, one_not_transposed, whole=False, telling=False),
    Conversion("keys and values swapped in one", encoder, swapped_in_one, whole=False, telling=False),
    Conversion("two layers exchanged", encoder, layers_exchanged, whole=False, telling=False),
    Conversion("layers sorted as text", lambda m: encoder(m, 12), sorted_as_text, whole=False, telling=False),
    Conversion("noise in the target", encoder, noisy, whole=False),
    Conversion("noise in the source", with_optimizer, without_optimizer),
    Conversion("student and teacher", averaged, teacher),
    Conversion("unrelated", encoder, unrelated, whole=False),
    Conversion("fine-tuned", encoder, fine_tuned, whole=False, telling=False),
    Conversion("lora merged", merged, lora_merged, whole=False, telling=False),
    Conversion("quantised", encoder, quantised, whole=False, telling=False),
    Conversion("equal layers", equal_layers, transposed),
    Conversion("target longer", encoder, longer, whole=False),
    Conversion("every second layer", encoder, shorter),
    Conversion("squares", squares, squares_turned),
    Conversion("few values", coarse, transposed),
    Conversion("hostile values and names", hostile, hostile_kept, whole=False),
    Conversion("names that mislead", encoder, conflicting, telling=False),
    Conversion("rows only", encoder, rows_only),
    Conversion("keys repeated", llama, double_heads, whole=False),
    Conversion("half precision", encoder, half_precision),
    Conversion("up before gate", llama, gate_first),
    Conversion("fresh encoder", encoder, transposed, weights="fresh"),
    Conversion("fresh llama", llama, gate_first, weights="fresh"),
)
