"""The model zoo; importing it registers every network."""

from shift_jax.models import (
    alexnet,
    cifar,
    faces,
    googlenet,
    mobilenet,
    resnet50,
    shiftnet,
    shufflenet,
    squeezenet,
    style,
    vgg,
)
from shift_jax.models.registry import create_model, list_models, load_pretrained, model_record

__all__ = [
    "alexnet",
    "cifar",
    "create_model",
    "faces",
    "googlenet",
    "list_models",
    "load_pretrained",
    "mobilenet",
    "model_record",
    "resnet50",
    "shiftnet",
    "shufflenet",
    "squeezenet",
    "style",
    "vgg",
]
