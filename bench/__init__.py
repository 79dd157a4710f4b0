"""What a warm request costs, beside a peer in the same run: `./dev bench --help`."""
