"""The shift fused with the pointwise convolution that follows it."""
