"""The commands: `shift-jax NAME`, each also `python -m shift_jax.commands.NAME`.

To add a command, add `NAME.py` with `line` and `main(options)` and its name to
`dispatch.COMMANDS`. `line` reads the arguments, `exits` turns the outcome into an exit status.
"""
