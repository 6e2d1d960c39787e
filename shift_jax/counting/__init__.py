"""Parameters and multiply-accumulates (MACs) of any linen network, whole or layer by layer."""

from shift_jax.counting.layer_table import LayerRow, layer_table
from shift_jax.counting.macs import count_macs
from shift_jax.counting.parameters import count_parameters

__all__ = ["LayerRow", "count_macs", "count_parameters", "layer_table"]
