"""The default config of each task."""

from ml_collections import ConfigDict

from shift_jax.config import ClassificationConfig, FacesConfig, StyleConfig, nested


def classification() -> ConfigDict:
    """Returns the defaults of image classification."""
    return ConfigDict(nested(ClassificationConfig()))


def faces() -> ConfigDict:
    """Returns the defaults of face embedding."""
    return ConfigDict(nested(FacesConfig()))


def style() -> ConfigDict:
    """Returns the defaults of style transfer."""
    return ConfigDict(nested(StyleConfig()))
