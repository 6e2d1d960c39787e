"""The reproduction of the paper: its tables, the sweep that trains its networks, its figures."""
