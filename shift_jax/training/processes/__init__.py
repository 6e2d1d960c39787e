"""Several processes as one run: joining, agreeing, stopping and losing one."""
