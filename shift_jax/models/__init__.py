"""The model zoo; importing it registers every network."""

from shift_jax.models import cifar
from shift_jax.models.registry import create_model, list_models, model_record

__all__ = ["cifar", "create_model", "list_models", "model_record"]
