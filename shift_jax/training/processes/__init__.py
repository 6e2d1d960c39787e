"""Several processes as one run: joining, agreeing, stopping, losing one."""
