"""The model zoo; importing it registers every network."""

from shift_jax.models import (  # noqa: F401  Each module registers its networks.
    active_shift,
    alexnet,
    cifar,
    faces,
    googlenet,
    mobilenet,
    resnet50,
    shiftnet,
    shufflenet,
    sparse_shift,
    squeezenet,
    style,
    vgg,
)
from shift_jax.models.pretrained import load_pretrained
from shift_jax.models.registry import create_model, list_models, model_record
from shift_jax.weights.shipped import list_pretrained

__all__ = ["create_model", "list_models", "list_pretrained", "load_pretrained", "model_record"]
