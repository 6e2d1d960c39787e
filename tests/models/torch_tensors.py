"""Tensors as PyTorch would save a network's."""

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.models import model_record


def layout_of(name, arguments):
    return model_record(name).torch_layout(arguments)


def shapes_of(model, image_shape=(160, 160, 3)):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)


def torch_tensors(shapes, layout):
    """Tensors of PyTorch's names and shapes for all variables; zeros that take no memory."""
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        *module, kind = (key.key for key in path[1:])
        name = f"{layout.name('/'.join(module))}.{leaves.get(kind, kind)}"
        shape = {1: lambda n: (n,), 2: lambda i, o: (o, i), 4: lambda h, w, i, o: (o, i, h, w)}
        assert name not in tensors, f"two of our layers are called {name}"
        tensors[name] = np.broadcast_to(np.float32(0), shape[leaf.ndim](*leaf.shape))
    return tensors
