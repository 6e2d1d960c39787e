"""The paper's tables: printed cells, published accuracies and exact counts."""
